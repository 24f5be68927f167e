# shellcheck shell=bash
# The keys, certificates and client configurations of one life of the cluster. To be sourced.

keys=$run/keys

make_certificates() {
    [ ! -e "$keys/finished" ] || return 0
    local names=DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
    local addresses=IP:127.0.0.1,IP:$node_address,IP:$api_address
    rm -rf "$keys"
    mkdir -p "$keys"
    chmod 700 "$keys"

    key authority
    openssl req -x509 -new -key "$keys/authority.key" -subj "/CN=$network" -days 3650 \
        -addext keyUsage=critical,keyCertSign,cRLSign -out "$keys/authority.crt"
    certificate apiserver /CN=kube-apiserver "$names,$addresses"
    certificate apiserver-client /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate admin /O=system:masters/CN=admin
    certificate controller-manager /CN=system:kube-controller-manager
    certificate scheduler /CN=system:kube-scheduler
    certificate kubelet "/O=system:nodes/CN=system:node:$node" \
        "DNS:$node,IP:$node_address,IP:127.0.0.1"
    # Tokens of service accounts are signed with this one.
    openssl genrsa -out "$keys/accounts.key" 2048 2>/dev/null
    openssl rsa -in "$keys/accounts.key" -pubout -out "$keys/accounts.pub" 2>/dev/null

    local user
    for user in controller-manager scheduler kubelet admin; do
        client_configuration "$user" "$api_port" >"$keys/$user.kubeconfig"
    done
    touch "$keys/finished"
}

key() { openssl ecparam -name prime256v1 -genkey -noout -out "$keys/$1.key"; }

# certificate NAME SUBJECT [OTHER NAMES]
certificate() {
    key "$1"
    openssl req -new -key "$keys/$1.key" -subj "$2" -out "$keys/$1.request"
    {
        echo 'extendedKeyUsage=clientAuth,serverAuth'
        # Python checks strictly from 3.13 on.
        echo 'authorityKeyIdentifier=keyid'
        [ -z "${3:-}" ] || echo "subjectAltName=$3"
    } >"$keys/$1.extensions"
    openssl x509 -req -in "$keys/$1.request" -CA "$keys/authority.crt" \
        -CAkey "$keys/authority.key" -CAcreateserial -days 3650 \
        -extfile "$keys/$1.extensions" -out "$keys/$1.crt" 2>/dev/null
    rm "$keys/$1.request" "$keys/$1.extensions"
}

# client_configuration USER PORT: print a KUBECONFIG.
client_configuration() {
    cat <<END
apiVersion: v1
kind: Config
clusters:
- name: $network
  cluster:
    server: https://127.0.0.1:$2
    certificate-authority-data: $(base64 -w 0 "$keys/authority.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w 0 "$keys/$1.crt")
    client-key-data: $(base64 -w 0 "$keys/$1.key")
contexts:
- name: $network
  context: {cluster: $network, user: $1}
current-context: $network
END
}
