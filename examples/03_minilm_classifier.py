"""Turn a sentence encoder into a classifier: a new head, frozen lower layers, and weights for the rare class.

Run: python examples/03_minilm_classifier.py DIRECTORY    (pip install '.[text]')
DIRECTORY holds all-MiniLM-L6-v2, or another BERT: weights, config.json and tokenizer.json.
"""

from __future__ import annotations

import sys

import numpy as np

from weighttools import train

URGENT = [
    "The server is down and nobody can log in",
    "We lost all data of this morning, please call at once",
    "Water is running out of the ceiling onto the machines",
    "Payment fails for every customer since ten minutes",
    "Fire alarm on the second floor",
]
ORDINARY = [
    "Could you send me last month's invoice again?",
    "Which colours does the chair come in?",
    "Thank you, the parcel arrived yesterday",
    "I would like to change my delivery address",
    "How do I set a new picture in my profile?",
    "Is the shop open on Saturdays?",
    "Please add my colleague to the mailing list",
    "What is the warranty on the blue lamp?",
    "Nice work on the new catalogue",
    "Can I pay by invoice?",
    "When will the summer sale begin?",
    "Do you ship to Norway?",
    "The manual for the coffee machine is hard to find",
    "I should like to order the same tea as last time",
    "Where can I read about your company's history?",
    "May I bring my dog to the office?",
    "The newsletter could have larger pictures",
    "Is there a student discount?",
    "How heavy is the large table?",
    "Do you sell gift cards?",
]
TEST = [
    ("All our phones are dead, customers cannot reach us", "urgent"),
    ("The database is corrupted and orders are disappearing", "urgent"),
    ("There is smoke coming from the printer room", "urgent"),
    ("Nobody can open the door of the building", "urgent"),
    ("Do you have this lamp in green?", "ordinary"),
    ("Thanks for the quick delivery", "ordinary"),
    ("I want to subscribe to the newsletter", "ordinary"),
    ("How long does shipping to France take?", "ordinary"),
    ("Please send the receipt to my new address", "ordinary"),
    ("Is breakfast included?", "ordinary"),
]
base = sys.argv[1]
rows = [(text, "urgent") for text in URGENT] + [(text, "ordinary") for text in ORDINARY]
learn = train.data.text(rows, tokenizer=base)
test = train.data.text(TEST, tokenizer=base, names=learn.names)


def tuned(class_weight: str | None) -> tuple[train.Model, train.Classification]:
    model = train.model(base, head=train.Classifier(n_classes=2, init="he_normal", pooling="mean", names=learn.names))
    task = train.Classification(2, class_weight=class_weight, names=learn.names)
    result = train.fit(
        model,
        learn,
        task=task,
        freeze=["embeddings.*", "encoder.layer.[0-3].*"],
        optimizer=train.optim.adamw(lr=train.schedules.warmup_linear(2e-4, warmup=4)),
        epochs=3,
        batch_size=8,
        clip_norm=1.0,
        log=None,
    )
    n = sum(model.params[name].size for name in result.trained)
    n_all = sum(p.size for p in model.params.values())
    print(f"\nclass weights {class_weight}: {n:,} of {n_all:,} weights learnt, the others frozen")
    if class_weight:
        print(task.prepared(learn.target).report(learn.target))
    return result.model, task


for class_weight in (None, "balanced"):
    model, task = tuned(class_weight)
    figures = train.evaluate(model, test, task)
    print(f"accuracy {figures['accuracy']:.0%}, F1 {figures['f1_macro']:.2f}")

print()
scores = train.ops.softmax(train.predict(model, test))
for (text, label), row in zip(TEST, scores, strict=True):
    told = learn.names[int(np.argmax(row))]
    print(f"{'  ' if told == label else '! '}{told:9} {row.max():.0%}  {text}")
