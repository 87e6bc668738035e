"""How serving touches a model: `transformers` on any device, `vllm` on CUDA.

task.py          what an engine is asked, and the pieces that it answers
text.py          tokens to text: whole characters only, and stop strings
sampling.py      the next token of each row, by each row's own parameters
cache.py         keys and values of the rows that share a forward pass
adapters.py      adapters over one base, loaded and unloaded while it serves
scheduler.py     which rows take part in the next forward pass
transformers.py  the engine around them: one thread that computes, and an asynchronous face
vllm.py          settings to an application of `ray.serve.llm`
"""
