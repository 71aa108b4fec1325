"""Windows, response delay, losses, the one training loop, checkpoints. This file loads nothing."""
