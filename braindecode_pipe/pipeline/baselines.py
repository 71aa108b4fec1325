"""What a stimulus looks or sounds like, as tables of ``[embed]`` beside those that are decoded."""

from __future__ import annotations

from braindecode_pipe.recipe import EmbedSpec, Recipe

MODELS = {"image": ("pixels",), "speech": ("envelope", "log-mel")}


def with_low_level(recipe: Recipe) -> Recipe:
    """The recipe with low-level tables, where ``[evaluate] controls`` asks for them.

    Every target that is decoded gets, by its kind, one table per model of ``MODELS`` that it does
    not have, named ``<target>_<model>``, decoded by the same decoders and scored in the same way:
    what a decoder finds in them needs nothing more of the stimulus. Steps in time and
    normalisation are those of the target's first table.
    """
    if "low-level" not in recipe.evaluate.controls:
        return recipe
    prompts = set(recipe.train.zero_shot.embeddings) if recipe.train.zero_shot else set()
    decoded = recipe.train.embeddings or [n for n in recipe.embed if n not in prompts]
    tables = dict(recipe.embed)
    train = recipe.train
    for name in decoded:
        spec, target = recipe.embed[name], recipe.target_of(name)
        for model in MODELS.get(recipe.plan.stimuli[target].kind, ()):
            own = {s.model for n, s in tables.items() if (s.target or n) == target}
            table = f"{target}_{model}"
            if model in own or table in tables:
                continue
            kept = {"normalize": spec.normalize, "components": spec.components}
            if spec.pooling == "time":
                kept |= {k: getattr(spec, k) for k in ("step_sfreq", "step_tmin", "step_tmax")}
                kept["pooling"] = "time"
            tables[table] = EmbedSpec(target=target, model=model, **kept)
            update = {}
            if train.embeddings:
                update["embeddings"] = [*train.embeddings, table]
            if name in train.decoders_of:
                update["decoders_of"] = {**train.decoders_of, table: train.decoders_of[name]}
            train = train.model_copy(update=update)
    return recipe.model_copy(update={"embed": tables, "train": train})
