"""A shopper's walk is the model's own reverse diffusion, and its ranks are those of Eq. 19 at every step."""

import pytest
import tiny
import torch

from imecd_lite.walks import walk

DATASET = tiny.tiny_dataset()
MODELS = {"literal": {}, "default": tiny.DEFAULTS}


@pytest.fixture(params=MODELS)
def model(request):
    return tiny.tiny_model(**MODELS[request.param]).eval()


@pytest.mark.parametrize("steps", [1, 3, None])
def test_a_walk_ends_where_the_model_ends(model, steps):
    history = torch.as_tensor(DATASET.sequences[3][:-1])[None, -DATASET.max_length :]
    key, target = torch.as_tensor(DATASET.user_keys[3:4]), int(DATASET.sequences[3][-1])
    walked = walk(model, DATASET, 3, steps, seed=5)
    scores = model.full_sort_predict(history, key, 5, steps)[0]
    trajectories = model.generate(history, key, 5, steps)
    assert walked.target == target and walked.timesteps == trajectories["id"].timesteps
    assert walked.ranks[-1] == walked.predicted_ranks[-1] == int((scores >= scores[target]).sum())
    for name, trajectory in trajectories.items():
        torch.testing.assert_close(walked.samples[name], trajectory.samples[:, 0])
        torch.testing.assert_close(walked.predictions[name], trajectory.predictions[:, 0])


def test_one_step_is_the_first_prediction_of_many(model):
    one, many = walk(model, DATASET, 3, 1), walk(model, DATASET, 3)
    assert one.ranks[-1] == many.predicted_ranks[0]


def test_ranks_of_x_t_are_those_of_a_model_that_stops_there(model):
    walked, tables = walk(model, DATASET, 3), model.item_embeddings()
    history = torch.as_tensor(DATASET.sequences[3][:-1])[None, -DATASET.max_length :]
    for step in (0, 4):
        generated = {name: samples[step : step + 1] for name, samples in walked.samples.items()}
        scores = model.score(generated, history, tables)[0]
        above = sum(float(score) >= float(scores[walked.target]) for score in scores)
        assert walked.ranks[step] == above
