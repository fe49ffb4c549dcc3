"""A planted fault for every equation, and for every fault that published code is known for: each is caught by name.

A mutant swaps a piece of one function's source, whoever calls it. The check beside it, a test of that module's own
file, passes on the clean source and has to fail under the mutant with an assertion. When a piece of source is no
longer there, its row says so: plant the fault anew in the code that took its place.
"""

from __future__ import annotations

import functools
import inspect
import tempfile
import textwrap
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import test_benchmark
import test_codebooks
import test_diffusion
import test_experts
import test_model
import test_popularity
import test_recommend
import test_train
import test_transformer
import tiny

from imecd_lite import codebooks, diffusion, model, recommend, train, transformer
from imecd_lite.codebooks import SequenceCodebook
from imecd_lite.dataset import Dataset
from imecd_lite.diffusion import Denoiser, NoiseSchedule, TokenDenoiser
from imecd_lite.experts import IDGatedExperts, ItemGroups
from imecd_lite.model import IMECD
from imecd_lite.transformer import TransformerBlock

# Checks that are not a test as it stands


def betas_of_8_steps() -> None:
    test_diffusion.test_betas_are_the_truncated_linear_schedule(8)


def loss_without_contrastive_term() -> None:
    test_model.check_loss(use_contrastive=False)


def padding_changes_no_prediction() -> None:
    test_diffusion.test_extra_left_padding_changes_nothing(test_diffusion.random_denoiser)


def padding_changes_no_prediction_with_a_token() -> None:
    test_diffusion.test_extra_left_padding_changes_nothing(test_diffusion.random_token_denoiser)


def chunks_are_the_same_as_one_padded_to_50() -> None:
    test_benchmark.test_the_naive_variant_has_the_same_losses_gradients_and_codes({})


def default_scores() -> None:
    test_model.check_scores(**tiny.DEFAULTS)


def default_loss() -> None:
    test_model.check_loss(**tiny.DEFAULTS)


def scores_depend_on_the_user_alone() -> None:
    test_model.check_scores_depend_on_the_user_alone(tiny.tiny_model().eval())


def runs_repeat() -> None:
    test_train.assert_same_run(test_train.run(epochs=1), test_train.run(epochs=1))


def resumed_runs_are_exact() -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder, "whole"), Path(folder, "parts")
        test_train.run(parts, epochs=1)
        test_train.assert_same_run(test_train.run(parts, resume=True), test_train.run(whole), parts, whole)


def training_keeps_the_best() -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        test_train.test_training_stops_after_patience_epochs_without_a_better_ndcg_and_keeps_the_best(
            patch, Path(folder)
        )


def the_best_is_kept_in_memory() -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_train.test_the_best_epoch_is_returned_without_a_folder_too(patch)


def resumed_runs_go_on_from_the_last() -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        test_train.test_a_resumed_run_goes_on_from_the_last_epoch_and_still_knows_the_best(patch, Path(folder))


def best_means_ndcg() -> None:
    with pytest.MonkeyPatch.context() as patch:
        test_train.test_best_means_ndcg_at_10_and_no_other_metric(patch)


MUTANTS = [
    # (function, check, [(fault, its source, the mutant's)])
    # Eq. 1-6
    (
        IMECD.project,
        test_model.test_item_embeddings_are_eq_1_to_6_with_a_zero_row_for_the_padding,
        [
            (
                "Eq. 1-2: no bias",
                "self.projections[modality](",
                "F.linear(weight=self.projections[modality].weight, input=",
            )
        ],
    ),
    (
        IMECD.route,
        test_model.test_item_embeddings_are_eq_1_to_6_with_a_zero_row_for_the_padding,
        [
            ("Eq. 3-4: gate on the modality", "self.item_embedding.weight[1:]", "self.project(modality)"),
            ("Eq. 3-4: gate on the item before", "self.item_embedding.weight[1:]", "self.item_embedding.weight[:-1]"),
        ],
    ),
    (
        IMECD.item_embeddings,
        test_model.test_item_embeddings_are_eq_1_to_6_with_a_zero_row_for_the_padding,
        [
            ("Eq. 5-6: experts not asked", "self.route(name).embeddings", "self.project(name)"),
            ("padding is not zero", "(0, 0, 1, 0)", "(0, 0, 1, 0), value=1.0"),
        ],
    ),
    (
        IDGatedExperts.forward,
        test_experts.test_mixture_and_gates_are_those_of_eq_3_to_6,
        [
            ("Eq. 3-4: no softmax", "router_logits.softmax(dim=-1)", "router_logits"),
            ("Eq. 3-4: softmax over the items", "softmax(dim=-1)", "softmax(dim=0)"),
            ("Eq. 3-4: gate on the modality", "self.gate(id_embeddings)", "self.gate(modality)"),
        ],
    ),
    (
        IDGatedExperts.mix,
        test_experts.test_mixture_and_gates_are_those_of_eq_3_to_6,
        [
            ("Eq. 5-6: no bias", "routing_weights @ self.expert_bias", "0 * modality"),
            ("Eq. 5-6: matrix transposed", "weight.T", "weight"),
            ("Eq. 5-6: one weight for all experts", "routing_weights[:, n : n + 1]", "routing_weights[:, :1]"),
            ("Eq. 5-6: an expert left out", "enumerate(self.expert_weight)", "enumerate(self.expert_weight[1:])"),
        ],
    ),
    (
        IDGatedExperts.__init__,
        test_experts.test_every_expert_is_a_registered_parameter_and_learns,
        [("experts never registered", "nn.Parameter(torch.empty(", "(torch.empty(")],
    ),
    # Eq. 7-10
    (
        SequenceCodebook.select,
        test_codebooks.test_logits_are_those_of_eq_7,
        [("Eq. 7: no activation", "F.gelu(self.project(sequence))", "self.project(sequence)")],
    ),
    (
        SequenceCodebook.project,
        test_codebooks.test_a_batch_trimmed_to_its_longest_gives_the_same_as_one_padded_to_the_whole,
        [("Eq. 7: positions from the left", "-length:", ":length")],
    ),
    (
        SequenceCodebook.forward,
        test_codebooks.test_selector_gets_the_gradient_of_the_gumbel_softmax,
        [
            ("Eq. 8: no temperature", "/ self.temperature", "/ 1"),
            ("Eq. 8: softmax over the batch", ".softmax(dim=-1)", ".softmax(dim=0)"),
            ("Eq. 8: no straight-through", "hard + soft - soft.detach()", "hard"),
        ],
    ),
    (
        SequenceCodebook.forward,
        test_codebooks.test_training_adds_lambda_q_times_the_code_that_gumbel_noise_chose,
        [
            ("Eq. 8: no noise", "logits + gumbel_noise", "logits"),
            ("Eq. 8: noise subtracted", "logits + gumbel_noise", "logits - gumbel_noise"),
            ("Eq. 9: a mixture of codes", "hard + soft - soft.detach()", "soft"),
            ("Eq. 9: no lambda_q", "self.lambda_q * quantised", "quantised"),
            ("Eq. 9: lambda_q on the sequence", "quantised + sequence", "(quantised + sequence)"),
            ("Eq. 9: no sequence", "quantised + sequence", "quantised"),
        ],
    ),
    (
        SequenceCodebook.forward,
        test_codebooks.test_a_batch_trimmed_to_its_longest_gives_the_same_as_one_padded_to_the_whole,
        [("Eq. 9: positions from the left", "[:, -sequence.shape[1] :]", "[:, : sequence.shape[1]]")],
    ),
    (
        SequenceCodebook.forward,
        test_codebooks.test_inference_is_a_function_of_the_sequence_alone,
        [("Eq. 8: noise at inference", "logits.argmax(dim=-1)", "(9 * torch.randn(logits.shape)).argmax(dim=-1)")],
    ),
    (
        SequenceCodebook.forward,
        test_codebooks.test_forward_leaves_the_codes_alone,
        [
            (
                "codebook made anew from the test batch",
                "codes = ",
                "self.em_update([(sequence, logits.argmax(1))]); codes = ",
            )
        ],
    ),
    (
        SequenceCodebook.em_update,
        test_codebooks.test_em_moves_each_chosen_code_to_the_mean_of_its_padded_sequences,
        [
            ("Eq. 10: sums", "sums / counts.clamp(min=1)[:, None, None]", "sums"),
            ("Eq. 10: mean over the batch", "counts.clamp(min=1)[:, None, None]", "counts.sum()"),
            ("Eq. 10: mean over positions", "means = sums", "means = sums.mean(1, keepdim=True)"),
            ("Eq. 10: padding does not count", "counts[:, None, None] > 0", "sums != 0"),
        ],
    ),
    (
        SequenceCodebook.em_update,
        test_codebooks.test_em_sees_one_batch_however_it_is_cut_into_chunks,
        [
            ("Eq. 10: padding on the right", "[:, -sequence.shape[1] :]", "[:, : sequence.shape[1]]"),
            ("Eq. 10: the last chunk's counts", "counts += ", "counts = "),
        ],
    ),
    (
        SequenceCodebook.em_update,
        test_codebooks.test_codes_nobody_chose_keep_their_value,
        [("Eq. 10: codes nobody chose become zero", "moved, self.codes)", "moved, moved)")],
    ),
    (
        SequenceCodebook.__init__,
        test_codebooks.test_codes_are_a_saved_buffer_and_no_parameter,
        [
            ("Eq. 10: codes learnt by gradient", 'self.register_buffer("codes", ', "self.codes = nn.Parameter("),
            (
                "codes not saved",
                '.register_buffer("codes", ',
                '.register_buffer(persistent=False, name="codes", tensor=',
            ),
        ],
    ),
    (
        codebooks.gumbel,
        test_codebooks.test_gumbel_noise_is_standard_gumbel_and_the_generators,
        [
            ("Eq. 8: exponential noise", "-(-uniform.log()).log()", "-uniform.log()"),
            ("Eq. 8: noise from anywhere", "generator=generator, ", ""),
        ],
    ),
    # The Transformer
    (
        TransformerBlock.look_up,
        test_transformer.test_real_positions_are_those_of_plain_loops_over_the_history_without_padding,
        [
            ("mask on the queries", "1, -1, key.shape[1])", "1, key.shape[1], -1)"),
            ("no mask", "heads, mask, dropout", "heads, None, dropout"),
            ("mask turned round", "heads, mask, dropout", "heads, ~mask, dropout"),
            ("keys for values", "(query, key, value))", "(query, key, key))"),
        ],
    ),
    (
        TransformerBlock.attend,
        test_transformer.test_real_positions_are_those_of_plain_loops_over_the_history_without_padding,
        [("no residual", "hidden = hidden + self.dropout(attended)", "hidden = self.dropout(attended)")],
    ),
    (
        TransformerBlock.forward,
        test_transformer.test_last_only_is_the_last_position_of_the_whole,
        [("the first position for the last", "hidden[:, -1:]", "hidden[:, :1]")],
    ),
    (
        TransformerBlock.look_up,
        test_transformer.test_dropout_acts_in_training_alone,
        [("attention dropped at inference", " if self.training else 0.0", "")],
    ),
    (
        TransformerBlock.split_heads,
        test_transformer.test_real_positions_are_those_of_plain_loops_over_the_history_without_padding,
        [("heads interleaved", "heads, -1))", "heads, -1)[::-1]).mT")],
    ),
    # Eq. 11-18
    (
        diffusion.make_betas,
        betas_of_8_steps,
        [
            ("schedule clipped, not truncated", "scale * 0.001 + 0.01", "0.999"),
            ("schedule without its offset", "scale * 0.0001 + 0.01", "scale * 0.0001"),
        ],
    ),
    (
        NoiseSchedule.__init__,
        test_diffusion.test_add_noise_is_eq_11_walked_t_times,
        [
            ("Eq. 12: product of betas", "(1 - make_betas", "(make_betas"),
            (
                "Eq. 12: off by one",
                "torch.ones(1, dtype=torch.float64), alphas_cumprod",
                "alphas_cumprod[:1], alphas_cumprod",
            ),
        ],
    ),
    (
        NoiseSchedule.__init__,
        test_diffusion.test_the_schedule_is_a_buffer_that_is_neither_learnt_nor_saved,
        [("schedule saved", "persistent=False", "persistent=True")],
    ),
    (
        NoiseSchedule.add_noise,
        test_diffusion.test_add_noise_is_eq_11_walked_t_times,
        [
            ("Eq. 12: no root of abar", "abar.sqrt() * original", "abar * original"),
            ("Eq. 12: variance for deviation", "(1 - abar).sqrt()", "(1 - abar)"),
            ("Eq. 12: off by one", "[timesteps]", "[timesteps - 1]"),
        ],
    ),
    (
        NoiseSchedule.add_noise,
        test_diffusion.test_add_noise_is_diffusers_at_every_t,
        [("Eq. 12: off by one, held against diffusers", "[timesteps]", "[timesteps - 1]")],
    ),
    (
        NoiseSchedule.add_noise,
        test_diffusion.test_each_row_is_noised_to_its_own_t,
        [("Eq. 12: one t for the batch", "[timesteps]", "[timesteps[:1]]")],
    ),
    (
        NoiseSchedule.step,
        test_diffusion.test_step_is_eq_17_and_18_at_every_t,
        [
            (
                "Eq. 17: beta and alpha swapped",
                "pred_original + of_sample * sample",
                "sample + of_sample * pred_original",
            ),
            ("Eq. 17: no root of abar", "math.sqrt(abar_prev)", "abar_prev"),
            ("Eq. 17: no root of alpha", "math.sqrt(alpha)", "alpha"),
            ("Eq. 17: abar_t for abar_(t-1)", "(1 - abar_prev) / (1 - abar)\n", "(1 - abar) / (1 - abar)\n"),
            ("Eq. 18: variance for deviation", "math.sqrt((1 -", "((1 -"),
            ("Eq. 18: variance for log-variance", "math.sqrt((1 - abar_prev) / (1 - abar) *", "math.exp(0.5 *"),
            ("Eq. 18: sigma_t^2 = beta_t", "math.sqrt((1 - abar_prev) / (1 - abar) *", "math.sqrt("),
            ("Eq. 18: no noise", " + sigma * noise", ""),
            ("Eq. 18: off by one", "self.abar[t], ", "self.abar[t - 1] - 1e-9, "),
        ],
    ),
    (
        NoiseSchedule.step,
        test_diffusion.test_step_is_diffusers_at_every_t,
        [("Eq. 18: sigma_t^2 = beta_t, held against diffusers", "((1 - abar_prev) / (1 - abar) * beta)", "(beta)")],
    ),
    (
        Denoiser.forward,
        test_diffusion.test_prediction_is_that_of_plain_loops_for_each_history,
        [
            ("Eq. 13: no x_t", "(x_t + time)", "time"),
            ("Eq. 13: no t", "(x_t + time)", "x_t"),
            ("Eq. 13: no noise_scale", "self.noise_scale * ", ""),
            ("Eq. 13: no norm", "self.input_norm(hidden)", "hidden"),
            ("Eq. 13: layers not used", "self.blocks[:-1]", "self.blocks[:0]"),
        ],
    ),
    (
        Denoiser.forward,
        padding_changes_no_prediction,
        [("Eq. 13: positions from the left", "positions[-sequence.shape[1] :]", "positions[: sequence.shape[1]]")],
    ),
    (
        diffusion.sample,
        test_diffusion.test_sample_walks_the_steps_of_eq_18,
        [
            ("Eq. 18: always from x_T", "step(pred_original, x_t,", "step(pred_original, noise[0],"),
            ("Eq. 18: one epsilon for all steps", "noise[k]", "noise[1]"),
            ("Eq. 18: denoiser told another t", "full((1,), t,", "full((1,), t - 1,"),
            ("Eq. 18: from zero, not from noise", "predictions = noise[0]", "predictions = 0 * noise[0]"),
        ],
    ),
    (
        diffusion.user_noise,
        test_diffusion.test_a_users_noise_is_a_function_of_user_and_seed,
        [
            ("noise depends on the place in the batch", "user_keys.tolist()", "range(len(user_keys))"),
            ("noise depends on the batch's size", "(key, seed)", "(key + len(user_keys), seed)"),
            ("noise depends on the batch-mates", "(key, seed)", "(key + int(user_keys[0]), seed)"),
            ("noise without seed", "(key, seed)", "(key, 0)"),
            ("noise of one user is another's of the next seed", "(key, seed)", "(key + seed, 0)"),
        ],
    ),
    (
        diffusion.user_noise,
        test_diffusion.test_a_longer_first_axis_continues_a_users_noise,
        [("fewer steps, other noise", "standard_normal(shape,", "standard_normal(shape[::-1],")],
    ),
    # Eq. 14, 20-22
    (
        IMECD.loss,
        test_model.test_loss_and_each_of_its_terms_are_those_of_the_equations,
        [
            ("Eq. 12: clean x_0 shown", "self.schedule.add_noise(start, noise, timesteps)", "x_0"),
            ("Eq. 14: sum", "else x_0),", 'else x_0, reduction="sum"),'),
            ("Eq. 14: noise predicted", "else x_0),", "else noise),"),
            ("Eq. 22: no lambda_c", "config.lambda_c * ", ""),
            ("Eq. 22: no reconstruction", ' + losses["reconstruction"]', ""),
            ("Eq. 22: the last modality's", "total = total + losses", "total = losses"),
        ],
    ),
    (
        IMECD.loss,
        loss_without_contrastive_term,
        [("Table III: switch ignored", "if config.use_contrastive:", "if True:")],
    ),
    (
        IMECD.loss,
        test_model.test_gradients_are_the_slopes_of_the_oracles_loss,
        [
            ("Eq. 14: x_0 detached", "if config.detach_target else x_0", ""),
            ("Eq. 15: detached", "gather(pred_original)", "gather(pred_original.detach())"),
        ],
    ),
    (
        IMECD.loss,
        test_model.test_every_timestep_from_1_to_t_is_drawn_and_no_other,
        [
            (
                "Eq. 14: t from 0 to T - 1",
                "1, self.schedule.num_train_timesteps + 1",
                "0, self.schedule.num_train_timesteps",
            )
        ],
    ),
    (
        IMECD.condition,
        chunks_are_the_same_as_one_padded_to_50,
        [
            ("chunks joined out of order", "rejoin(chunks, (", "torch.cat(list("),
            ("a chunk has others' x_t", "x_t[rows]", "x_t[: len(rows)]"),
            ("a chunk has others' t", "timesteps[rows]", "timesteps[: len(rows)]"),
            ("a chunk has others' noise", "noise[rows])", "noise[: len(rows)])"),
            (
                "EM of the last chunk alone",
                "quantised.append((sequence.detach(), output))",
                "quantised = [(sequence.detach(), output)]",
            ),
        ],
    ),
    (
        IMECD.loss,
        test_model.test_no_history_is_padded_to_50_when_it_is_short,
        [("everything padded to 50", "self.chunks(", "(lambda items, _: [(torch.arange(size), items)])(")],
    ),
    (
        IMECD.condition,
        test_model.test_loss_and_each_of_its_terms_are_those_of_the_equations,
        [("Eq. 13: unquantised sequence", "given(modality, mixed,", "given(modality, sequence,")],
    ),
    (
        IMECD.condition,
        test_model.test_codes_move_by_em_alone_to_the_means_of_the_histories_that_chose_them,
        [("Eq. 10: of quantised sequences", "(sequence.detach(), output)", "(mixed.detach(), output)")],
    ),
    (
        IMECD.loss,
        default_loss,
        [
            ("own prediction never used", "torch.where(own, passes[0].detach(), x_0)", "x_0"),
            ("own prediction at another t", "torch.full_like(timesteps, self", "torch.full_like(timesteps, -1 + self"),
            ("the pass from noise not trained", "for x in passes", "for x in 2 * [pred_original]"),
            ("selector matched to the farthest code", ".nearest(sequence)", ".nearest(-sequence)"),
            ("no lambda_match", "config.lambda_match * losses", "2 * losses"),
        ],
    ),
    (
        IMECD.normalise,
        default_loss,
        [
            ("catalogue not centred", "embeddings - embeddings.mean(dim=0)", "embeddings"),
            ("each item scaled by itself", ".square().mean()", ".square().mean(dim=1, keepdim=True)"),
        ],
    ),
    (
        model.standardise,
        default_loss,
        [("features not centred", "(features - features.mean(dim=0))", "features")],
    ),
    (
        IMECD.loss,
        default_loss,
        [("no lambda_gate", "config.lambda_gate * losses", "2 * losses")],
    ),
    (
        IMECD.cross_entropy,
        test_model.test_loss_and_each_of_its_terms_are_those_of_the_equations,
        [
            ("Eq. 20: padding is a candidate", "logits_of(table[1:], 0)", "logits_of(table, 0)"),
            ("Eq. 20: other modality's items", "(table[1:], 0)", '(self.item_embeddings()["id"][1:], 0)'),
            ("Eq. 21: the next item's column", "batch.pos_items - 1)", "batch.pos_items % self.num_items)"),
        ],
    ),
    (
        IMECD.cross_entropy,
        test_model.test_gradients_are_the_slopes_of_the_oracles_loss,
        [("Eq. 20: items detached", "logits_of(table[1:], 0)", "logits_of(table[1:].detach(), 0)")],
    ),
    (
        IMECD.cross_entropy,
        default_loss,
        [
            ("scores not scaled", "self.score_scale * predicted", "predicted"),
            ("one repeat bias for all modalities", "-1), self.repeat_bias[m]", "-1), self.repeat_bias[0]"),
        ],
    ),
    (
        IMECD.cross_entropy,
        test_model.test_a_loss_in_parts_is_the_same,
        [
            ("each part from the first item", "size * k", "0"),
            ("repeats beyond a part", "columns.masked_fill(columns >= len(items), -1)", "columns % len(items)"),
            ("the next item's repeat is lost", "of_target + REPEAT_SCALE", "of_target + 0"),
            ("the next item's neighbour", "embedding(batch.pos_items,", "embedding(batch.pos_items - 1,"),
        ],
    ),
    (
        IMECD.loss,
        test_model.test_the_gate_loss_leaves_the_ids_where_they_are,
        [("the IDs move to their groups", "[1:].detach()", "[1:]")],
    ),
    (
        IMECD.score,
        default_scores,
        [
            ("no repeat bias", "item_seq - 1, bias)", "item_seq - 1, 0 * bias)"),
            ("text and image count in full", "w * s for w, s", "s for w, s"),
            ("the biases count in full", "w * b for w, b", "b for w, b"),
        ],
    ),
    (
        model.move_repeats,
        test_model.test_what_a_shopper_has_is_moved_once_however_often_she_has_it,
        [
            ("twice what she has twice", " & ~earlier", ""),
            ("the padding is an item", "(history >= 0) & ", ""),
        ],
    ),
    (
        transformer.attend_alone,
        test_transformer.test_a_position_alone_sees_what_it_sees_joined_to_the_others,
        [
            ("the padding is seen", ".masked_fill(~attention_mask[..., None], -torch.inf)", ""),
            ("no scale", " / query.shape[-1] ** 0.5", ""),
            ("its own value is lost", " + weights[:, -1:] * own_value", ""),
        ],
    ),
    (
        ItemGroups.update,
        test_experts.test_centres_follow_their_items,
        [
            ("centres jump", "self.decay * self.centres + (1 - self.decay) * means", "means"),
            ("an empty group moves", "torch.where(counts > 0, moved, self.centres)", "moved"),
        ],
    ),
    (
        SequenceCodebook.nearest,
        test_codebooks.test_nearest_is_the_code_with_the_least_squared_distance_with_the_padding_as_zeros,
        [
            ("nearest by inner product", "self.codes.square().sum(dim=(1, 2)) - 2", "-2"),
            ("padding ignored", "self.codes.square()", "self.codes[:, -sequence.shape[1] :].square()"),
        ],
    ),
    (
        SequenceCodebook.em_update,
        test_codebooks.test_with_decay_a_code_goes_only_part_of_the_way,
        [
            (
                "decay turned round",
                "self.code_decay * self.codes + (1 - self.code_decay)",
                "(1 - self.code_decay) * self.codes + self.code_decay",
            )
        ],
    ),
    (
        SequenceCodebook.em_update,
        test_codebooks.test_a_code_that_nobody_chose_for_a_lifetime_starts_afresh_from_a_sequence_of_the_batch,
        [("codes never age", "self.idle + 1", "self.idle")],
    ),
    (
        SequenceCodebook.revive,
        test_codebooks.test_a_code_that_nobody_chose_for_a_lifetime_starts_afresh_from_a_sequence_of_the_batch,
        [("all on the first sequence", "* size //", "* 0 //")],
    ),
    (
        TokenDenoiser.given,
        test_diffusion.test_prediction_with_x_t_as_a_token_is_that_of_plain_loops,
        [
            ("Eq. 13: no x_t", "self.x_in(x_t.to(last.dtype)) + ", ""),
            ("Eq. 13: no t", " + nn.functional.embedding(timesteps, times)", ""),
            ("the token sees the sequence alone", ", sees_itself=True", ""),
            ("the sequence is not transformed", "number < len(self.blocks)", "False"),
            ("Eq. 13: no norm", "self.output_norm(token[:, 0])", "token[:, 0]"),
        ],
    ),
    (
        TokenDenoiser.given,
        padding_changes_no_prediction_with_a_token,
        [("Eq. 13: positions from the left", "positions[-sequence.shape[1] :]", "positions[: sequence.shape[1]]")],
    ),
    (
        IMECD.after_step,
        test_model.test_codes_move_by_em_alone_to_the_means_of_the_histories_that_chose_them,
        [("Eq. 10: never", "output.chosen[name]", "[]")],
    ),
    (
        IMECD.__init__,
        test_model.test_features_are_neither_learnt_nor_saved,
        [
            (
                "features learnt",
                'buffer(f"{name}_features", features, persistent=False)',
                'parameter(f"{name}_features", nn.Parameter(features))',
            ),
            ("features saved", ", persistent=False", ""),
        ],
    ),
    # Eq. 15
    (
        model.distinct_pairs,
        test_model.test_contrastive_pairs_are_different_histories_of_different_users,
        [
            ("Eq. 15: self pairs", "return (", "return torch.eye(len(users), dtype=torch.bool) | ("),
            ("Eq. 15: pairs of one user", " & (users[:, None] != users)", ""),
            ("Eq. 15: pairs of one history", "(differing > 0) & ", ""),
        ],
    ),
    (
        model.contrastive_loss,
        test_model.test_contrastive_pairs_are_different_histories_of_different_users,
        [
            ("Eq. 15: masked pairs count as exp(0)", "-torch.inf", "0.0"),
            ("Eq. 15: dot product for cosine", "F.normalize(predictions, dim=-1)", "predictions"),
            ("Eq. 15: no logarithm", ".logsumexp(dim=1)", ".exp().sum(dim=1)"),
        ],
    ),
    (
        model.contrastive_loss,
        test_model.test_contrastive_loss_needs_no_more_than_a_matrix_of_the_batch,
        [("Eq. 15: a tensor B x B x D", "(unit @ unit.T)", "(unit[:, None] * unit).sum(dim=-1)")],
    ),
    # Eq. 19
    (
        IMECD.full_sort_predict,
        test_model.test_scores_are_those_of_eq_16_to_19,
        [
            ("Eq. 19: x_T for x_0", "samples[-1]", "samples[0]"),
            ("Eq. 19: the first prediction", "samples[-1]", "predictions[0]"),
        ],
    ),
    (
        IMECD.score,
        test_model.test_scores_are_those_of_eq_16_to_19,
        [
            ("Eq. 19: a modality missing", "(self.score_weights, products,", "(self.score_weights[1:], products[1:],"),
            ("Eq. 19: padding recommended", "scores[:, 0] = -torch.inf", "scores[:, 0] = 0"),
        ],
    ),
    (
        IMECD.full_sort_predict,
        scores_depend_on_the_user_alone,
        [("a chunk has others' noise", "user_keys[rows]", "user_keys[: len(rows)]")],
    ),
    (
        IMECD.generate,
        test_model.test_scores_are_those_of_eq_16_to_19,
        [
            ("Eq. 18: one noise for all modalities", "noise[:, :, m]", "noise[:, :, 0]"),
            ("Eq. 9: not at inference", "given(name, quantised,", "given(name, F.embedding(item_seq, tables[name]),"),
        ],
    ),
    (
        IMECD.generate,
        scores_depend_on_the_user_alone,
        [
            ("padding attended", "item_seq > 0", "item_seq >= 0"),
            ("noise of the batch", "user_noise(user_keys, seed,", "user_noise(user_keys * 0 + len(user_keys), seed,"),
        ],
    ),
    # Baseline, recommendations, training
    (
        Dataset.train_counts.func,
        test_popularity.test_held_out_items_do_not_count,
        [
            ("popularity knows the future", "sequence[:-2]", "sequence"),
            ("popularity knows the validation items", "sequence[:-2]", "sequence[:-1]"),
        ],
    ),
    (
        recommend.score_history,
        test_recommend.test_the_model_is_asked_for_the_latest_items_of_the_whole_history_and_with_the_users_key,
        [
            (
                "the first items, not the latest",
                "[None, -dataset.max_length :]",
                "[None, : dataset.max_length]",
            )
        ],
    ),
    (
        recommend.recommend,
        test_recommend.test_what_the_user_has_is_left_out_on_request_however_long_ago,
        [("only the latest left out", "dataset.sequences[user])]", "dataset.sequences[user][-dataset.max_length :])]")],
    ),
    (
        Dataset.train_examples,
        test_train.test_held_out_items_change_no_training_step,
        [
            ("held-out items are trained on", "self.lengths - 3", "self.lengths - 1"),
            ("the validation item is trained on", "self.lengths - 3", "self.lengths - 2"),
        ],
    ),
    (
        train.train,
        test_train.test_test_items_change_nothing_about_a_run,
        [("the test items stop training", 'dataset.split("valid")', 'dataset.split("test")')],
    ),
    (
        train.train,
        training_keeps_the_best,
        [
            ("the last epoch is kept", "improved = history.best_epoch == epoch", "improved = True"),
            ("the last epoch is returned", "model.load_state_dict(best)", "pass"),
        ],
    ),
    (
        train.train,
        the_best_is_kept_in_memory,
        [("the best weights change under training", "tensor.detach().clone()", "tensor.detach()")],
    ),
    (
        train.History.best_epoch.fget,
        best_means_ndcg,
        [("best by another metric", "valid_ndcg@10", "valid_hit@10")],
    ),
    (
        train.train_epoch,
        test_train.test_reported_loss_is_the_mean_over_examples_and_not_over_batches,
        [
            ("mean of batch means", "count += size", "count += 1; size = 1"),
            ("training in eval mode", "model.train()", "model.eval()"),
        ],
    ),
    (
        train.train_epoch,
        runs_repeat,
        [
            ("dropout from the clock", "torch.manual_seed(seed + process_index() * 10_000_019)", "torch.seed()"),
            ("noise from the clock", "manual_seed(seed)\n    sums", "manual_seed(torch.seed())\n    sums"),
        ],
    ),
    (
        train.training_step,
        resumed_runs_are_exact,
        [("gradients pile up", "optimizer.zero_grad(set_to_none=True)", "pass")],
    ),
    (
        train.load_state,
        resumed_runs_are_exact,
        [("Adam's moments forgotten", '"state": dict(moments)', '"state": {}')],
    ),
    (
        train.load_state,
        resumed_runs_go_on_from_the_last,
        [("the best weights go on", 'groups["model"]', 'groups["best"]')],
    ),
]

TABLE = [
    pytest.param(function, check, old, new, id=f"{function.__qualname__}, {fault}")
    for function, check, faults in MUTANTS
    for fault, old, new in faults
]


def mutated_code(function: Callable, old: str, new: str) -> types.CodeType:
    """The code of ``function`` with ``new`` in place of ``old``, compiled where the function was."""
    function = inspect.unwrap(function)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(old) == 1, f"{function.__qualname__} holds {old!r} {source.count(old)} times; plant it anew"
    free = ", ".join(function.__code__.co_freevars)  # __class__, where super() is called
    body = textwrap.indent(source.replace(old, new), "    ")
    namespace = dict(function.__globals__)
    exec(f"def make({free}):\n{body}\n    return {function.__name__}", namespace)
    mutant = namespace["make"](*function.__code__.co_freevars)
    if isinstance(mutant, functools.cached_property):
        mutant = mutant.func
    return inspect.unwrap(mutant.fget if isinstance(mutant, property) else mutant).__code__


@functools.cache
def passes_clean(check: Callable[[], None]) -> bool:
    check()
    return True


@pytest.mark.parametrize(("function", "check", "old", "new"), TABLE)
def test_a_planted_fault_is_caught(monkeypatch, function, check, old, new):
    code = mutated_code(function, old, new)
    assert passes_clean(check)
    monkeypatch.setattr(inspect.unwrap(function), "__code__", code)
    with pytest.raises(AssertionError):
        check()


def test_every_equation_has_a_mutant():
    planted = " ".join(case.id for case in TABLE)
    named = set()
    for word in planted.replace(",", " ").replace(":", " ").split():
        first, _, last = word.partition("-")
        if first.isdigit():
            named |= set(range(int(first), int(last or first) + 1))
    assert named >= set(range(1, 23)) - {11, 16}  # 11 is what 12 sums up, 16 is what 17 and 18 compute
