#!/bin/sh
# Install what measuring on this host needs and what is not there yet.
#
#   tools/provision.sh              install what is missing
#   tools/provision.sh --for-tests  the same and libbpf-tools, two programs of which are measured
#                                   in tests, and Chromium, which opens reports in tests; where
#                                   they cannot be had, a warning is all
#   tools/provision.sh --check      say what is there and what is missing; change nothing
#   tools/provision.sh --sources    print the apt source that lmbench and auditd would come from
#
# bpftrace, bpftool and Chromium become ordinary packages of the system. lmbench and auditd do not: lmbench
# stands in a part of the archive that few systems have enabled (Debian's non-free, Ubuntu's
# multiverse), and installing auditd starts it, which would spoil every measurement made
# without it. So these two, and libbpf-tools with them, are only downloaded and unpacked into a
# directory of our own, with an apt configuration of our own that lives as long as the download. The
# system's package sources and the list of its installed packages stay as they are.
#
# When all is there, nothing is run but a few look-ups, and the network is not touched.
#
# Environment:
#   SYSLAT_CACHE_DIR   where the unpacked programs go, below tools/
#                      (default: ${XDG_CACHE_HOME:-$HOME/.cache}/pytest-syslat)
#   SYSLAT_ROOT        for tests: a directory that stands for / when reading etc/os-release and
#                      the package sources in etc/apt, and when looking for package lists and
#                      for programs that PATH does not name

set -eu

# What apt and ldd print is read below, so it must not be translated.
LC_ALL=C
export LC_ALL

PROGRAMS='lat_syscall lat_proc lat_connect hello enough timing_o loop_o'
MEND="put lmbench's programs in a directory and pass --syslat-lmbench-dir"

root=${SYSLAT_ROOT:-}
cache=${SYSLAT_CACHE_DIR:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/pytest-syslat}
# The work is done in several directories, so a relative name would change its meaning.
case $cache in /*) ;; *) cache=$PWD/$cache ;; esac
tree=$cache/tools
work=''

say() { printf 'provision: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# --- What is there -----------------------------------------------------------------------------

is_program() { [ -f "$1" ] && [ -x "$1" ]; }

# find_program NAME: print where it is. An ordinary user's PATH often lacks the sbin
# directories, so these are looked into as well.
find_program() {
    command -v "$1" 2>/dev/null && return
    for dir in "$root/usr/sbin" "$root/sbin"; do
        is_program "$dir/$1" && printf '%s\n' "$dir/$1" && return
    done
    return 1
}

# lmbench_in DIRECTORY: print the directory in this tree that has every program we use.
lmbench_in() {
    for dir in "$1"/usr/lib/lmbench/bin/*; do
        for name in $PROGRAMS; do
            is_program "$dir/$name" || continue 2
        done
        printf '%s\n' "$dir" && return
    done
    return 1
}

audit_in() {
    for dir in "$1/sbin" "$1/usr/sbin"; do
        is_program "$dir/auditd" && is_program "$dir/auditctl" && printf '%s\n' "$dir" && return
    done
    return 1
}

system_lmbench() {
    command -v lat_syscall 2>/dev/null && return
    for found in "$root"/usr/lib/lmbench/bin/lat_syscall "$root"/usr/lib/lmbench/bin/*/lat_syscall; do
        is_program "$found" && printf '%s\n' "$found" && return
    done
    return 1
}

system_audit() {
    find_program auditctl >/dev/null && find_program auditd
}

observers_in() {
    for dir in "$1/usr/sbin" "$1/usr/bin"; do
        is_program "$dir/opensnoop" && is_program "$dir/execsnoop" && printf '%s\n' "$dir" && return
    done
    return 1
}

system_observers() {
    find_program execsnoop >/dev/null && find_program opensnoop
}

have_lmbench() { system_lmbench || lmbench_in "$tree"; }
have_audit() { system_audit || audit_in "$tree"; }
have_observers() { system_observers || observers_in "$tree"; }

have_needed() { have_lmbench >/dev/null && have_audit >/dev/null; }
have_all() {
    have_needed && { [ -z "$for_tests" ] || have_observers >/dev/null; }
}

# --- Which system this is ----------------------------------------------------------------------

# Sets distribution, codename and components; the last is empty where we know of no lmbench.
identify() {
    distribution='' codename='' components=''
    [ -r "$root/etc/os-release" ] || return 0
    # The file is made to be read by a shell. A subshell keeps its other variables away from ours.
    # shellcheck source=/dev/null
    distribution=$(. "$root/etc/os-release" && printf '%s' "${ID:-}")
    # shellcheck source=/dev/null
    codename=$(. "$root/etc/os-release" && printf '%s' "${VERSION_CODENAME:-}")
    case $distribution in
        debian) components='main non-free' ;;
        ubuntu) components='main universe multiverse' ;;
    esac
    [ -n "$codename" ] || components=''
}

unknown_distribution() {
    die "unknown distribution '${distribution:-?}': only Debian and Ubuntu are known$1"
}
no_own_archive() {
    die "no entry for the suite '$codename' of $distribution's own archive in $root/etc/apt$1"
}

# Ubuntu ties bpftool to the kernel's version and has none for many kernels. It is used only to
# describe what a run found loaded, so there its absence is no error.
bpftool_is_optional() { [ "$distribution" = ubuntu ]; }

# --- The distribution's own package source ------------------------------------------------------

# Print, in apt's deb822 format, the system's entries for the distribution's own archive, with
# the components changed to those that we need. Fails when there is none.
#
# Other archives often use the same suite name, and often 'main' too. What tells the
# distribution's own one is, from sure to likely: the distribution's keyring named in Signed-By; no
# Signed-By, but written in the distribution's own file with a path such as /debian; anything
# else in that file. Only the surest kind found is used.
print_sources() {
    set --
    for file in "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*.sources \
        "$root"/etc/apt/sources.list.d/*.list; do
        [ -r "$file" ] && [ -f "$file" ] && set -- "$@" "$file"
    done
    [ $# -gt 0 ] || return 1
    # shellcheck disable=SC2016  # these dollars are awk's
    awk -v codename="$codename" -v components="$components" '
        function has(list, word,    i, n, words) {
            n = split(list, words, " ")
            for (i = 1; i <= n; i++) if (words[i] == word) return 1
            return 0
        }

        # How sure it is that this is the own archive: 1 is surest, and 0 is another archive.
        function rank(file, uris, signed_by) {
            sub(/.*\//, "", file)
            if (signed_by ~ /(debian|ubuntu)-archive-/) return 1
            # A mirror of a company may be signed with a key of its own.
            if (signed_by != "") return file ~ /^(debian|ubuntu)\.sources$/ ? 3 : 0
            if (file !~ /^(sources\.list|(debian|ubuntu)\.(list|sources))$/) return 0
            if (uris ~ /\/ppa\//) return 0
            return uris ~ /\/(debian|ubuntu|ubuntu-ports)(\/|[ \n]|$)/ ? 2 : 3
        }

        function consider(file, types, uris, suites, parts, signed_by, others,    r) {
            if (!has(types, "deb") || !has(suites, codename) || !has(parts, "main")) return
            if (uris ~ /cdrom:/) return
            r = rank(file, uris, signed_by)
            if (r == 0) return
            if (best == 0 || r < best) best = r
            ranks[++count] = r
            found[count] = "Types: deb\nURIs: " uris "\nSuites: " codename \
                "\nComponents: " components "\n" others
        }

        function end_stanza() {
            if (fields && tolower(field["enabled"]) !~ /^(no|false|without|off|disable|0)$/)
                consider(stanza_file, field["types"], field["uris"], field["suites"],
                    field["components"], field["signed-by"], others)
            split("", field)
            fields = 0
            last = others = ""
        }

        FNR == 1 { end_stanza() }

        # One stanza of "Name: value" lines an archive, with an empty line between two.
        FILENAME ~ /\.sources$/ {
            stanza_file = FILENAME
            if (/^#/) next
            if (/^[ \t\r]*$/) { end_stanza(); next }
            if (/^[ \t]/) {
                field[last] = field[last] "\n" $0
                if (kept) others = others $0 "\n"
                next
            }
            fields = 1
            last = tolower($0)
            sub(/[ \t]*:.*/, "", last)
            value = $0
            sub(/^[^:]*:[ \t]*/, "", value)
            sub(/[ \t\r]+$/, "", value)
            field[last] = value
            # What else is said of the archive, its key above all, holds for us too.
            kept = last !~ /^(types|uris|suites|components|enabled|x-.*)$/
            if (kept) others = others $0 "\n"
            next
        }

        # One line an archive: deb [name=value name=value] uri suite component...
        {
            sub(/#.*/, "")
            if ($1 != "deb") next
            options = signed_by = others = ""
            if (match($0, /^[ \t]*deb[ \t]+\[[^]]*\]/)) {
                options = substr($0, RSTART, RLENGTH)
                $0 = "deb " substr($0, RSTART + RLENGTH)
                gsub(/^[^[]*\[|\]$/, "", options)
            }
            n = split(options, words, " ")
            for (i = 1; i <= n; i++) {
                if (words[i] !~ /^[a-z-]+=/ || words[i] ~ /^[a-z-]+-=/) continue
                name = words[i]; sub(/=.*/, "", name)
                value = words[i]; sub(/^[^=]*=/, "", value); gsub(/,/, " ", value)
                if (name == "signed-by") signed_by = value
                if (name == "arch") name = "architectures"
                if (name == "lang") name = "languages"
                if (name == "target") name = "targets"
                others = others name ": " value "\n"
            }
            parts = ""
            for (i = 4; i <= NF; i++) parts = parts " " $i
            consider(FILENAME, $1, $2, $3, parts, signed_by, others)
            others = ""
        }

        END {
            end_stanza()
            for (i = 1; i <= count; i++)
                if (ranks[i] == best && !(found[i] in printed)) {
                    printed[found[i]] = 1
                    print found[i]
                }
            exit best == 0
        }
    ' "$@"
}

# --- The system's packages ----------------------------------------------------------------------

system_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 "$@" >&2
}

have_lists() {
    for file in "$root"/var/lib/apt/lists/*_Packages*; do
        [ -e "$file" ] && return
    done
    return 1
}

# A mirror may have replaced a version that the lists still name, so a failed installation is
# tried once more with fresh lists.
system_install() {
    have_lists || system_apt update || return
    system_apt install --no-install-recommends "$@" && return
    system_apt update && system_apt install --no-install-recommends "$@"
}

install_bpf_tools() {
    wanted=''
    find_program bpftrace >/dev/null || wanted=bpftrace
    extra=''
    if ! find_program bpftool >/dev/null; then
        if bpftool_is_optional; then extra=linux-tools-common; else wanted="$wanted bpftool"; fi
    fi
    wanted=${wanted# }
    [ -n "$wanted$extra" ] || return 0

    command -v apt-get >/dev/null ||
        die "no apt-get here: install bpftrace and bpftool with this system's package manager"
    if [ "$(id -u)" != 0 ]; then
        [ -z "$wanted" ] ||
            die "not root: run 'sudo apt-get install --no-install-recommends $wanted' first"
        say "warning: no bpftool; 'sudo apt-get install $extra' may give one"
        return 0
    fi
    if [ -n "$wanted" ]; then
        say "installing $wanted"
        # shellcheck disable=SC2086  # these are several names
        system_install $wanted ||
            die "apt-get could not install $wanted: see its messages above; is there a network?"
    fi
    if [ -n "$extra" ]; then
        system_install "$extra" || say "warning: no bpftool: apt-get could not install $extra"
    fi
}

have_browser() {
    find_program chromedriver >/dev/null || return
    find_program chromium || find_program chromium-browser || find_program google-chrome
}

# Ubuntu has Chromium as a snap alone, which needs a running snapd.
install_browser() {
    if have_browser >/dev/null; then return 0; fi
    if [ "$distribution" = debian ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing chromium chromium-driver"
        if system_install chromium chromium-driver; then return 0; fi
    fi
    say 'warning: no chromium and chromedriver: some tests are skipped'
}

# --- lmbench, auditd and libbpf-tools -----------------------------------------------------------

clean_up() {
    [ -z "$work" ] || rm -rf "$work"
}

# The system's own apt settings are kept, since a proxy or a certificate may be among them. Its
# hooks are not: they clean the system's package cache or tell desktop programs of an update,
# and this is none.
write_apt_configuration() {
    mkdir -p "$work/sources.d" "$work/lists/partial" "$work/cache/archives/partial"
    apt-config dump |
        grep -v -i -E '^(APT::Update|DPkg|Dir::State::lists|Dir::Cache)[: ]' |
        grep -v -i -E '^Dir::Etc::(main|parts|sourcelist|sourceparts) ' >"$work/apt.conf"
    cat >>"$work/apt.conf" <<END
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$work/sources.d";
Dir::State::lists "$work/lists/";
Dir::Cache "$work/cache";
Dir::Cache::archives "archives/";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
APT::Update::Error-Mode "any";
END
    # apt fetches as a user of its own who cannot write into root's cache directory.
    [ "$(id -u)" != 0 ] || echo 'APT::Sandbox::User "root";' >>"$work/apt.conf"
}

private_apt() { APT_CONFIG=$work/apt.conf "$@"; }

# Print what apt complained about: its first error is the cause, the rest follows from it.
apt_complaint() {
    grep '^E:' "$work/log" | head -n 1
}

# missing_libraries PACKAGE...: the library packages that these need and that the system lacks,
# found by walking from one to the next. Other dependencies, an awk or the headers to compile
# lmbench once more, do not concern the programs that we run.
missing_libraries() {
    pending=$* seen=' '
    while [ -n "$pending" ]; do
        # shellcheck disable=SC2086  # these are several names
        needed=$(private_apt apt-cache --important depends $pending |
            sed -n 's/^ *|\{0,1\}\(Pre\)\{0,1\}-\{0,1\}Depends: \(lib[^<> ]*\)$/\2/p')
        pending=''
        for package in $needed; do
            case $seen in *" $package "*) continue ;; esac
            seen="$seen$package "
            case $package in *-dev*) continue ;; esac
            case $(dpkg-query -W -f '${Status} ' "$package" 2>/dev/null) in
                *' installed '*) continue ;;
            esac
            printf '%s\n' "$package"
            pending="$pending $package"
        done
    done
}

library_path() {
    path=''
    for dir in "$1"/lib/*-linux-* "$1"/usr/lib/*-linux-* "$1"/lib "$1"/usr/lib; do
        [ -d "$dir" ] && path=$path${path:+:}$dir
    done
    printf '%s' "$path"
}

# Fail with a message unless the unpacked programs are complete and can be started.
verify() {
    libraries=$(library_path "$1")
    case " $2 " in *' lmbench '*)
        dir=$(lmbench_in "$1") || die "the lmbench package lacks one of: $PROGRAMS; instead, you can $MEND"
        for name in $PROGRAMS; do set -- "$@" "$dir/$name"; done
        ;;
    esac
    case " $2 " in *' auditd '*)
        dir=$(audit_in "$1") || die 'the auditd package lacks auditd or auditctl'
        set -- "$@" "$dir/auditd" "$dir/auditctl"
        # It refuses to tell its version to anyone but root.
        [ "$(id -u)" != 0 ] || LD_LIBRARY_PATH=$libraries "$dir/auditctl" -v >/dev/null ||
            die 'the downloaded auditctl does not run on this system'
        ;;
    esac
    case " $2 " in *' libbpf-tools '*)
        dir=$(observers_in "$1") || die 'the libbpf-tools package lacks opensnoop or execsnoop'
        set -- "$@" "$dir/opensnoop" "$dir/execsnoop"
        ;;
    esac
    shift 2
    lacking=$(LD_LIBRARY_PATH=$libraries ldd "$@" 2>/dev/null | grep 'not found' | sort -u || true)
    # shellcheck disable=SC2086  # the words are joined into one line
    [ -z "$lacking" ] || die 'the downloaded programs lack libraries:' $lacking
}

unpack_tools() {
    wanted=''
    system_lmbench >/dev/null || wanted=lmbench
    system_audit >/dev/null || wanted="$wanted auditd"
    # The tree is made anew as a whole: what an earlier run has added for tests stays in it.
    if [ -n "$for_tests" ] || observers_in "$tree" >/dev/null; then
        system_observers >/dev/null || wanted="$wanted libbpf-tools"
    fi
    wanted=${wanted# }

    case $wanted in *lmbench*) mend="; instead, you can $MEND" ;; *) mend='' ;; esac
    [ -n "$components" ] || unknown_distribution "$mend"
    for name in apt-get apt-cache apt-config dpkg dpkg-query flock; do
        command -v "$name" >/dev/null || die "no $name here, cannot download $wanted$mend"
    done

    if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
        die "cannot write to $cache: set SYSLAT_CACHE_DIR to a directory of yours"
    fi
    # Two runs at once must not both rename their trees into place.
    exec 9>"$cache/tools.lock"
    flock 9
    if have_all; then return 0; fi

    # A run that was killed could not clean up; holding the lock, we know that none is at work.
    rm -rf "$cache"/tools.new.*
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    # The configuration may hold a proxy's password; mktemp lets nobody else look into it.
    work=$(mktemp -d "$cache/tools.new.XXXXXX")
    write_apt_configuration
    print_sources >"$work/sources.d/own.sources" || no_own_archive "$mend"

    say "downloading $wanted into $tree"
    private_apt apt-get -q update >"$work/log" 2>&1 ||
        die "apt-get update failed ($(apt_complaint)): check the network$mend"
    case " $wanted " in *' libbpf-tools '*)
        # Releases before Debian 12 and Ubuntu 23.04 have none: the tests that need it are skipped.
        if ! private_apt apt-cache show libbpf-tools >/dev/null 2>&1; then
            say "warning: $distribution $codename has no libbpf-tools: some tests are skipped"
            if have_needed; then return 0; fi
            wanted=${wanted% libbpf-tools}
        fi
        ;;
    esac
    # shellcheck disable=SC2086  # these are several names
    packages="$wanted $(missing_libraries $wanted)"
    mkdir "$work/packages" "$work/tree"
    # shellcheck disable=SC2086
    (cd "$work/packages" && private_apt apt-get -q download $packages) >"$work/log" 2>&1 ||
        die "apt-get download failed ($(apt_complaint))$mend"
    for package in "$work"/packages/*.deb; do
        dpkg -x "$package" "$work/tree" || die "cannot unpack ${package##*/}"
    done
    verify "$work/tree" "$wanted"

    rm -rf "$work/old"
    [ ! -e "$tree" ] || mv "$tree" "$work/old"
    mv "$work/tree" "$tree"
}

# --- What to do ---------------------------------------------------------------------------------

report() {
    if found=$("$2"); then
        printf 'ok       %-9s %s\n' "$1" "$found"
    elif [ "${3:-}" = optional ]; then
        printf 'missing  %-9s (optional)\n' "$1"
    else
        printf 'missing  %s\n' "$1"
        status=1
    fi
}

have_bpftrace() { find_program bpftrace; }
have_bpftool() { find_program bpftool; }

identify
for_tests=''
case ${1:-} in
    '' | --for-tests)
        for_tests=${1:-}
        install_bpf_tools
        [ -z "$for_tests" ] || install_browser
        if ! have_needed; then
            unpack_tools
        elif ! have_all; then
            # What measuring needs is there: without a network, most tests can still be run.
            set +e
            (set -e; unpack_tools)
            # shellcheck disable=SC2181  # as a condition itself, it would run without set -e
            [ $? = 0 ] || say 'warning: no libbpf-tools: some tests are skipped'
            set -e
        fi
        ;;
    --check)
        status=0
        report bpftrace have_bpftrace
        if bpftool_is_optional; then
            report bpftool have_bpftool optional
        else
            report bpftool have_bpftool
        fi
        report lmbench have_lmbench
        report auditd have_audit
        exit "$status"
        ;;
    --sources)
        [ -n "$components" ] || unknown_distribution ''
        print_sources || no_own_archive ''
        ;;
    *)
        sed -n '2,/^$/s/^#\( \|$\)//p' "$0"
        case $1 in -h | --help) ;; *) die "unknown option $1" ;; esac
        ;;
esac
