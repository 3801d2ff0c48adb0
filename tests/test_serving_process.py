"""The server as a process: it ends as it should, and lm-evaluation-harness gets the numbers of our own runs from it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serving_case import events_of, joined
from serving_process_case import ROOT, question, started

from specexit_jax import SpecExit
from specexit_jax.data.known_prompts import EXAMPLES
from specexit_jax.data.splits import sample

httpx = pytest.importorskip("httpx")
pytestmark = pytest.mark.slow
CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def model():
    return SpecExit.load()


def test_a_term_finishes_what_runs_and_refuses_what_comes(model):
    """And a server that was killed serves again."""
    with started() as server:
        address, told = server.address, {}
        asked = question(EXAMPLES["gsm_symbolic"], seed=3, n=8, specexit={"method": "think"}, stream=True)
        begun = threading.Event()

        def read() -> None:
            with httpx.stream("POST", address + CHAT, json=asked, timeout=120) as response:
                parts = []
                for part in response.iter_text():
                    parts.append(part)
                    begun.set()
                told["text"] = "".join(parts)

        thread = threading.Thread(target=read)
        thread.start()
        assert begun.wait(60)
        server.process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=address) as client:
            statuses = []
            while not statuses or statuses[-1] == 200:
                statuses.append(client.post(CHAT, json=question("?", max_tokens=1)).status_code)
            assert statuses[-1] == 503 and client.get("/ready").json()["status"] == "stopping"
        thread.join()
        assert server.end() == 0
        for number in range(8):
            name = f"generate/{number}" if number else "generate"
            alone = model.generate(EXAMPLES["gsm_symbolic"], id=name, seed=3, exits=False)
            found = joined(events_of(told["text"]), number)
            assert (found["text"]["reasoning"], found["text"]["content"]) == (alone.thinking, alone.text)
    alone = model.generate(EXAMPLES["gcd"], seed=1)
    for _ in range(2):
        with started() as server:
            told = httpx.post(server.address + CHAT, json=question(EXAMPLES["gcd"], seed=1), timeout=60).json()
            assert told["choices"][0]["message"]["content"] == alone.text
            server.process.kill()
            assert server.end() == -signal.SIGKILL


def finished(*words: str, **environment: str) -> subprocess.CompletedProcess:
    """A command in the clone, at its end."""
    own = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=own, capture_output=True, text=True)


def test_an_address_that_is_taken_and_a_file_without_keys_are_told(tmp_path):
    (tmp_path / "keys.txt").write_text("\n \n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wrong = {f"--port={taken.getsockname()[1]}": "Nothing can listen at 127.0.0.1", "--seed=1": "a request's own"}
        wrong[f"--api_key_file={tmp_path}/keys.txt"] = "holds no key"
        for flag, sentence in wrong.items():
            done = finished("launch.serve", flag)
            assert done.returncode == 1 and sentence in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def task(folder: Path) -> Path:
    """A task of lm-eval's: problems of the world, decoded greedily."""
    problems = sample("test", 4)
    rows = [json.dumps({"question": one.question, "answer": one.answer}) + "\n" for one in problems]
    (folder / "problems.jsonl").write_text("".join(rows))
    told = {
        "task": "world",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "problems.jsonl")}, "cache_dir": str(folder / "cache")},
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 600},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }
    (folder / "world.yaml").write_text(json.dumps(told))  # which is YAML
    return folder / "world.yaml"


def test_the_harness_gets_our_own_numbers_over_http(tmp_path):
    pytest.importorskip("lm_eval")
    pytest.importorskip("tenacity")
    pytest.importorskip("aiohttp")
    file = task(tmp_path)
    with started() as server:
        where = f"model=specexit,base_url={server.address}{CHAT},num_concurrent=8,tokenized_requests=False,tokenizer_backend=None"
        words = [
            "lm_eval",
            "--model",
            "local-chat-completions",
            "--model_args",
            where,
            "--tasks",
            str(file),
            "--apply_chat_template",
        ]
        done = finished(*words, "--output_path", str(tmp_path / "http"), OPENAI_API_KEY="-", HF_HUB_OFFLINE="1")
        assert done.returncode == 0, done.stderr[-3000:]
    ours = [f"--tasks={file}", "--config=configs/embedded.py", f"--workdir={tmp_path}/own", "--max_gen_toks=600"]
    done = finished("launch.lm_eval", *ours, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr[-3000:]
    (told,) = (tmp_path / "own" / "lm_eval").glob("*.json")
    own = json.loads(told.read_text())["results"]["world"]["exact_match,none"]
    (found,) = (tmp_path / "http").rglob("results_*.json")
    assert json.loads(found.read_text())["results"]["world"]["exact_match,none"] == own > 0.5
