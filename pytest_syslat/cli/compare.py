"""stub"""
NAME="compare"; HELP=""; DESCRIPTION=""
def add_arguments(p): pass
def run(a): raise NotImplementedError
