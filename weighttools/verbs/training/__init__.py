"""What the commands finetune, evaluate and generate do, without their printing."""
