"""GGUF, llama.cpp's file format: read and written by Transformers' names.

reader: file -> Checkpoint;  writer: config, tensors, tokenizer -> file
    header bytes | names, values of tensors | config, rope | vocabulary, tokenizer
"""
