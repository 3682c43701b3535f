"""Model folders as llama.cpp reads them: settings and tensors by architecture, tokenizers, and the file itself."""
