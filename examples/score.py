"""Which layers' attention couples least?  python examples/score.py org/name"""

import sys

import gatenorm_stream

if len(sys.argv) != 2:
    sys.exit(__doc__)
for layer in sorted(gatenorm_stream.score(sys.argv[1]), key=lambda s: s.score):
    print(f"{layer.layer:5} {layer.score:12.5g}")
