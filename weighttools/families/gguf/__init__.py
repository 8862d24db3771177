"""What llama.cpp and Hugging Face call the same things: names, settings, tokenizers, rotary scaling."""
