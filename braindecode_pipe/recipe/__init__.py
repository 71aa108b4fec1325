from braindecode_pipe.recipe.models import *  # noqa: F403
