"""Continuous batching gives each answer what it would get alone, whoever comes and goes beside it."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from jobs.backends.peft import with_adapter
from jobs.errors import UsageError
from jobs.serving.engines.adapters import Adapters
from jobs.serving.engines.sampling import Sampler, draw
from jobs.serving.engines.scheduler import Job, Scheduler
from jobs.serving.engines.task import Piece, Sampling, Task
from jobs.serving.engines.transformers import TransformersEngine
from jobs.settings import LoraSettings

GREEDY = Sampling(temperature=0)
PROMPTS = [
    "안녕하세요, 무엇을",
    "The quick brown",
    "대한민국의 수도는 서울입니다. 한글은 세종대왕이 만들었습니다. 자음과 모음을 모아 씁니다. " * 3,
    "def add",
    "한",
]
LENGTHS = [20, 260, 12, 40, 33]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer) -> LlamaForCausalLM:
    torch.manual_seed(3)
    return _spread(tiny.model(len(tokenizer)))


@pytest.fixture(scope="module")
def adapters(tokenizer, tmp_path_factory) -> dict[str, Path]:
    """Two LoRA adapters and a DoRA one over `model`, each with an effect of its own."""
    made = {}
    for seed, method in enumerate(("lora", "lora", "dora")):
        torch.manual_seed(3)
        base = _spread(tiny.model(len(tokenizer)))
        torch.manual_seed(100 + seed)
        adapted = with_adapter(base, LoraSettings(method=method, rank=4))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
        made[f"{method}{seed}"] = tmp_path_factory.mktemp("adapter") / method
        adapted.save_pretrained(made[f"{method}{seed}"])
    return made


def _spread(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Larger weights in the head, so that no two tokens are as good as alike."""
    with torch.no_grad():
        model.lm_head.weight.mul_(40)
    return model


class Collected:
    """What a job delivered."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.error: BaseException | None = None

    def __call__(self, piece: Piece | BaseException) -> None:
        if isinstance(piece, BaseException):
            self.error = piece
        else:
            self.pieces.append(piece)

    def text(self, choice: int = 0) -> str:
        return "".join(piece.text for piece in self.pieces if piece.choice == choice)


def scheduler(model, tokenizer, rows=4, prefill_tokens=16) -> Scheduler:
    held = model if isinstance(model, Adapters) else Adapters(model)
    return Scheduler(held, tokenizer.decode, frozenset({tokenizer.eos_token_id}), rows, prefill_tokens)


def ids(tokenizer, text) -> tuple[int, ...]:
    return tuple(tokenizer(text)["input_ids"])


def alone(model, tokenizer, prompt, tokens) -> str:
    """What transformers' own `generate` writes, up to the end token."""
    prompt_ids = torch.tensor([ids(tokenizer, prompt)])
    output = model.generate(prompt_ids, max_new_tokens=tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    written = output[0, prompt_ids.shape[1] :].tolist()
    end = written.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in written else len(written)
    return str(tokenizer.decode(written[:end])).rstrip("\ufffd")


def test_greedy_answers_are_those_of_generate_while_rows_join_and_leave(model, tokenizer):
    runner = scheduler(model, tokenizer)
    answers = []
    for prompt, length in zip(PROMPTS, LENGTHS, strict=True):
        answers.append(Collected())
        runner.add(Job(Task("base", ids(tokenizer, prompt), length, GREEDY), None, answers[-1]))
        for _ in range(7):  # so that each comes while those before it are at work
            runner.step()
    most = 0
    while not runner.is_idle:
        runner.step()
        most = max(most, runner.running)
    assert most >= 3, "rows must have shared passes"
    for prompt, length, answer in zip(PROMPTS, LENGTHS, answers, strict=True):
        assert answer.text().rstrip("\ufffd") == alone(model, tokenizer, prompt, length)
        assert answer.pieces[-1].tokens <= length


def test_rows_of_different_adapters_share_a_pass_and_get_their_own_answers(model, tokenizer, adapters):
    from peft import PeftModel

    torch.manual_seed(3)
    held = Adapters(_spread(tiny.model(len(tokenizer))))
    slots = {name: held.load(folder) for name, folder in adapters.items()} | {"base": None}
    runner = scheduler(held, tokenizer, rows=8)
    answers = {}
    for name, slot in slots.items():
        answers[name] = Collected()
        runner.add(Job(Task(name, ids(tokenizer, "오늘 저녁"), 24, GREEDY), slot, answers[name]))
    while not runner.is_idle:
        runner.step()
    expected = {"base": alone(model, tokenizer, "오늘 저녁", 24)}
    for name, folder in adapters.items():
        torch.manual_seed(3)
        adapted = PeftModel.from_pretrained(_spread(tiny.model(len(tokenizer))), folder).eval()
        expected[name] = alone(adapted, tokenizer, "오늘 저녁", 24)
    assert {name: answer.text().rstrip("\ufffd") for name, answer in answers.items()} == expected
    assert len(set(expected.values())) == len(expected), "adapters must differ, or this shows nothing"


def test_choices_share_a_prompt_and_a_seed_gives_the_same_answers_in_any_company(model, tokenizer):
    task = Task("base", ids(tokenizer, "한글은"), 12, Sampling(temperature=1.2, top_p=0.9, seed=7), choices=3)

    def answers(company: int) -> list[str]:
        runner, wanted = scheduler(model, tokenizer, rows=8), Collected()
        for _ in range(company):
            runner.add(Job(Task("base", ids(tokenizer, "def"), 30, Sampling()), None, Collected()))
            runner.step()
        runner.add(Job(task, None, wanted))
        while not runner.is_idle:
            runner.step()
        return [wanted.text(choice) for choice in range(3)]

    first = answers(company=0)
    assert len(set(first)) == 3
    assert first == answers(company=0) == answers(company=4)


@pytest.mark.parametrize("before", [20, 280])
def test_columns_that_a_row_does_not_use_hold_nothing_that_could_reach_its_answer(before, model, tokenizer):
    """NaN times the weight 0 of a masked column is NaN: memory that was never written once ended answers in padding."""
    task = Task("base", ids(tokenizer, "한"), 8, GREEDY)
    expected = alone(model, tokenizer, "한", 8)
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # in which torch fills new memory with NaN
    try:
        assert torch.empty(1).isnan().all(), "the fault must happen"
        runner, wanted = scheduler(model, tokenizer), Collected()
        runner.add(Job(Task("base", ids(tokenizer, PROMPTS[2]), 300, GREEDY), None, Collected()))
        for _ in range(before):  # the long row takes part; 280 tokens are more than the first buffers hold
            runner.step()
        runner.add(Job(task, None, wanted))
        while not runner.is_idle:
            runner.step()
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert wanted.text().rstrip("\ufffd") == expected


def test_a_step_computes_prompts_of_at_most_one_chunk_and_then_a_token_for_everybody(model, tokenizer):
    runner = scheduler(model, tokenizer, prefill_tokens=16)
    answers = [Collected() for _ in range(4)]
    prompts = [ids(tokenizer, "def")[:1] * length for length in (8, 8, 40, 8)]
    for prompt, answer in zip(prompts, answers, strict=True):
        runner.add(Job(Task("base", prompt, 200, GREEDY), None, answer))
    seen = []
    for _ in range(4):
        runner.step()
        seen.append([answer.pieces[-1].tokens if answer.pieces else 0 for answer in answers])
    assert seen == [[2, 2, 0, 0], [3, 3, 0, 0], [4, 4, 0, 0], [5, 5, 2, 2]]


def test_a_cancelled_job_leaves_within_one_step(model, tokenizer):
    runner = scheduler(model, tokenizer)
    jobs = [Job(Task("base", ids(tokenizer, prompt), 200, GREEDY), None, Collected()) for prompt in PROMPTS]
    for job in jobs:
        runner.add(job)
    for _ in range(12):
        runner.step()
    assert runner.running == 4
    for job in jobs:
        job.cancelled = True
    runner.step()
    assert runner.is_idle
    assert not any(runner.uses(job.slot) for job in jobs)


def test_a_stop_string_ends_the_answer_and_is_no_part_of_it(model, tokenizer):
    whole = alone(model, tokenizer, PROMPTS[3], 60)
    stop = whole[20:23]
    runner, answer = scheduler(model, tokenizer), Collected()
    runner.add(Job(Task("base", ids(tokenizer, PROMPTS[3]), 60, GREEDY, (stop,)), None, answer))
    while not runner.is_idle:
        runner.step()
    assert answer.text() == whole[: whole.index(stop)]
    assert answer.pieces[-1].finish == "stop"


def test_penalties_and_nucleus_change_what_is_drawn():
    logits = torch.tensor([[3.0, 2.9, 0.0, -5.0]])
    repeated = Sampler.of(Sampling(temperature=0, presence_penalty=0.5, frequency_penalty=0.0), 0)
    assert [draw(logits.clone(), [repeated])[0] for _ in range(3)] == [0, 1, 0]
    counted = Sampler.of(Sampling(temperature=0, frequency_penalty=2.0), 0)
    assert Counter(draw(logits.clone(), [counted])[0] for _ in range(6)) == {0: 3, 1: 2, 2: 1}
    nucleus = Sampler.of(Sampling(top_p=0.6, seed=1), 0)
    assert {draw(logits.clone(), [nucleus])[0] for _ in range(200)} == {0, 1}


def test_draws_follow_the_distribution():
    weights = torch.tensor([0.5, 0.3, 0.2])
    sampler = Sampler.of(Sampling(seed=11), 0)
    drawn = Counter(draw(weights.log()[None].clone(), [sampler])[0] for _ in range(1500))
    assert [drawn[token] / 1500 for token in range(3)] == pytest.approx(weights.tolist(), abs=0.05)


@pytest.fixture
def engine(model, tokenizer) -> Iterator[TransformersEngine]:
    made = TransformersEngine("base", model, tokenizer, most_rows=4, prefill_tokens=32)
    yield made
    made.close()


async def _texts(engine: TransformersEngine, task: Task) -> str:
    return "".join([piece.text async for piece in engine.generate(task)])


def test_adapters_are_swapped_while_answers_are_under_way(engine, tokenizer, adapters):
    task = Task("tuned", ids(tokenizer, "오늘 저녁"), 60, GREEDY)

    async def run() -> tuple[str, str, str]:
        await engine.load_adapter("tuned", adapters["lora0"])
        before = await _texts(engine, task)
        under_way = asyncio.create_task(_texts(engine, task))
        while not engine.running:
            await asyncio.sleep(0)
        await engine.load_adapter("tuned", adapters["lora1"])
        after, kept = await _texts(engine, task), await under_way
        await engine.unload_adapter("tuned")
        return before, kept, after

    before, kept, after = asyncio.run(run())
    assert kept == before, "an answer goes on with the adapter that it began with"
    assert after != before
    assert engine.models == ["base"]


def test_a_folder_that_does_not_fit_is_refused_and_nothing_changes(engine, tokenizer, adapters, tmp_path):
    async def run() -> None:
        await engine.load_adapter("good", adapters["lora0"])
        with pytest.raises(UsageError, match=str(tmp_path)):
            await engine.load_adapter("bad", tmp_path)
        await _texts(engine, Task("good", ids(tokenizer, "한"), 4, GREEDY))

    asyncio.run(run())
    assert engine.models == ["base", "good"]


def test_a_failed_pass_ends_its_jobs_and_the_engine_goes_on(engine, tokenizer):
    async def run() -> None:
        with pytest.raises(RuntimeError, match="computation failed"):
            await _texts(engine, Task("base", (10**6,), 4, GREEDY))  # no such token: the embedding raises
        assert await _texts(engine, Task("base", ids(tokenizer, "서울"), 8, GREEDY)) is not None

    asyncio.run(run())
    assert engine.stalled_s() < 5
