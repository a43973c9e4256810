"""How well the policy answers prompts that it was not trained on."""
