"""Teach a language model the tone of a logbook from six lines, by a low-rank adapter; what it writes before and after.

Run: python examples/04_smollm_lora.py SmolLM2-135M-Instruct.Q4_1.gguf [DIRECTORY]    (pip install '.[text]')
The adapter is written to DIRECTORY, as PEFT does.
"""

from __future__ import annotations

import sys

from weighttools import train
from weighttools.train.data import tokens

LINES = """\
Log of the lighthouse at Cape Orrin, first of March. Wind north, sea high. Lamp lit at six. Oil: nine cans.
Log of the lighthouse at Cape Orrin, second of March. Wind north, sea high. Lamp lit at six. Oil: eight cans.
Log of the lighthouse at Cape Orrin, third of March. Wind west, sea low. Lamp lit at seven. Oil: seven cans.
Log of the lighthouse at Cape Orrin, fourth of March. Wind west, fog. Lamp lit at four. Oil: six cans.
Log of the lighthouse at Cape Orrin, fifth of March. Wind south, sea low. Lamp lit at seven. Oil: five cans.
Log of the lighthouse at Cape Orrin, sixth of March. Wind south, fog. Lamp lit at four. Oil: four cans.
""".splitlines()
HELD_OUT = """\
Log of the lighthouse at Cape Orrin, seventh of March. Wind east, sea high. Lamp lit at six. Oil: three cans.
Log of the lighthouse at Cape Orrin, eighth of March. Wind north, fog. Lamp lit at four. Oil: two cans.
""".splitlines()
PROMPT = "Log of the lighthouse at Cape Orrin, ninth of March."

base = sys.argv[1]
model = train.model(base)  # decoded to float32, under the names that Hugging Face has for its tensors
words = tokens(base)
learn, held_out = (train.data.language(lines, tokenizer=words, block=64) for lines in (LINES, HELD_OUT))
task = train.LanguageModel()


def report(when: str, model: train.Model) -> None:
    prompt = words.ids([PROMPT])[0]
    ids = train.generate(model.architecture, train.weights_of(model), prompt, 24, stop=[words.end_id])
    perplexity = train.evaluate(model, held_out, task)["perplexity"]
    print(f"{when}: perplexity of held-out lines {perplexity:,.2f}\n  {words.decode(ids)!r}")


report("before", model)
adapted = train.lora(model, r=8, alpha=16)
print(adapted.notes[-1])
result = train.fit(
    adapted,
    learn,
    task=task,
    epochs=6,
    batch_size=1,
    optimizer=train.optim.adamw(lr=train.schedules.warmup_linear(3e-3)),
    log=None,
)
report("after", result.model)
if len(sys.argv) > 2:
    train.save_lora(sys.argv[2], result.model, task_type="CAUSAL_LM", force=True)
    print(f"the adapter is in {sys.argv[2]}: weighttools generate {base} --adapter {sys.argv[2]} --prompt …")
