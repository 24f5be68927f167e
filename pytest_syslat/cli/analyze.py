"""stub"""
NAME="analyze"; HELP=""; DESCRIPTION=""
def add_arguments(p): pass
def run(a): raise NotImplementedError
