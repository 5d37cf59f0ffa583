"""Import this, and transformers loads outputs of gatenorm-stream without trust_remote_code.

    import gatenorm_stream.runtime
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("pruned")

The code is that of the file that travels with every output, but from this package. Needs torch and transformers
(the extra `engines`).
"""

from gatenorm_stream.runtime.register import register

register()
