"""Tests of the Python binding, on an engine of the tiny model."""

import json
import signal
import tempfile
import threading
import time
import unittest
from ctypes import c_void_p
from pathlib import Path

import trtllm
from trtllm import FinishReason, LoadMode, Precision, Request, Sampling, Status, Target
from trtllm.delivery import Listener
from trtllm.native import call

CHECKPOINT = Path(__file__).parent.parent.parent / "models" / "tiny"
PROMPT = "Once upon a time"
# What the README of the model tells as its greedy sample.
OPENING = (
    ", there was a little rabbit named Theo. One night, Theo was in bed with his orange scarf when he heard a noise."
)
QUESTION = [{"role": "user", "content": "What is 3 + 4?"}]
LIMIT_S = 60


def setUpModule():
    global folder, folder_path, engine_path, engine
    folder = tempfile.TemporaryDirectory()
    folder_path = Path(folder.name)
    engine_path = folder_path / "model.engine"
    trtllm.build(CHECKPOINT, engine_path)
    engine = trtllm.Engine(engine_path)


def tearDownModule():
    engine.close()
    folder.cleanup()


def greedy(max_tokens):
    """For exactly so many tokens."""
    return Sampling(max_tokens=max_tokens, ignore_eos=1)


class Case(unittest.TestCase):
    def fails(self, status, culprit, function, *arguments, **keywords):
        """The library fails with that status, and its message names the culprit."""
        with self.assertRaises(trtllm.Error) as caught:
            function(*arguments, **keywords)
        self.assertIs(caught.exception.status, status)
        self.assertIn(culprit, str(caught.exception))


class ExecutorCase(Case):
    def setUp(self):
        self.executor = trtllm.Executor(engine)
        self.addCleanup(self.executor.close)


class ErrorTest(Case):
    def test_error_names_its_culprit(self):
        self.fails(Status.NOT_FOUND, "no/such.engine", trtllm.Engine, "no/such.engine")
        self.fails(Status.NOT_FOUND, "no/such-Grüße.engine", trtllm.Engine, "no/such-Grüße.engine")

    def test_status_of_a_later_version(self):
        self.assertEqual((Status(999), Status(999).name), (999, "UNKNOWN_999"))

    def test_errors_belong_to_their_thread(self):
        wrong = []

        def fail(path):
            for _ in range(100):
                try:
                    trtllm.Engine(path)
                except trtllm.Error as error:
                    if path not in str(error):
                        wrong.append(error)

        run_threads(lambda i: fail(f"no/such-{i}.engine"), 8)
        self.assertEqual(wrong, [])

    def test_version(self):
        self.assertTrue(trtllm.version().startswith("0.1."))
        self.fails(Status.UNSUPPORTED_VERSION, "", call, "check_version", 0, 2)

    def test_closed_handles(self):
        own = trtllm.Engine(engine_path)
        executor, tokenizer = trtllm.Executor(own), trtllm.Tokenizer(own)
        own.close()
        own.close()
        self.fails(Status.INVALID_HANDLE, "`engine`", lambda: own.info)
        self.fails(Status.INVALID_HANDLE, "`engine`", trtllm.Executor, own)
        self.fails(Status.INVALID_HANDLE, "was destroyed", call, "engine_destroy", own._handle)
        self.fails(Status.INVALID_HANDLE, "`executor`", call, "executor_check_health", c_void_p(0x5A5A5A5A))
        # What was made from an engine keeps it alive.
        self.assertNotEqual(executor.generate(PROMPT, greedy(4)), "")
        executor.close()
        executor.close()
        self.fails(Status.INVALID_HANDLE, "`executor`", executor.generate, PROMPT)
        self.fails(Status.INVALID_HANDLE, "`executor`", executor.submit, Request(PROMPT), print)
        tokenizer.close()
        self.fails(Status.INVALID_HANDLE, "`tokenizer`", tokenizer.encode, PROMPT)

    def test_defaults_are_where_they_belong(self):
        sampling = Sampling()
        self.assertEqual((sampling.top_p, sampling.max_tokens, sampling.logprobs), (1, 128, -1))
        with self.assertRaises(TypeError):
            Sampling(topp=1)


class EngineTest(Case):
    def test_info(self):
        info = engine.info
        self.assertEqual((info.architecture, info.layers, info.hidden_size), ("LlamaForCausalLM", 4, 256))
        self.assertEqual((info.eos_tokens, info.bos_token, info.vocab_size), ([1, 2], 0, 1000))
        self.assertEqual((info.precision, info.target), (Precision.BF16, Target.CPU))
        self.assertAlmostEqual(engine.sampling.temperature, 0.7)
        self.assertIn("LlamaForCausalLM", json.dumps(json.loads(engine.inspect())))

    def test_progress(self):
        told = []
        path = folder_path / "progress.engine"
        trtllm.build(CHECKPOINT, path, lambda *what: told.append(what), precision=Precision.F32)
        self.assertGreater(len({phase for phase, _ in told}), 1)
        self.assertEqual(told[-1][1], 1)
        with trtllm.Engine(path, lambda *what: told.append(what), load_mode=LoadMode.READ) as other:
            self.assertEqual(other.info.precision, Precision.F32)

    def test_progress_cancels(self):
        path = folder_path / "cancelled.engine"

        def stop(phase, fraction):
            raise RuntimeError("hot")

        with self.assertRaisesRegex(RuntimeError, "hot"):
            trtllm.build(CHECKPOINT, path, stop)
        self.assertFalse(path.exists())

    def test_tokenizer(self):
        with trtllm.Tokenizer(engine) as tokenizer:
            text = "Grüße, 世界 🦊\0!"
            self.assertEqual(tokenizer.decode(tokenizer.encode(text)), text)
            self.assertEqual(tokenizer.encode(PROMPT, special_tokens=True)[0], 0)
            self.assertEqual(tokenizer.decode([]), "")
            chat = tokenizer.apply_chat_template(QUESTION)
            self.assertEqual(chat, "<|begin|><|user|>What is 3 + 4?<|end|><|assistant|>")
            with self.assertRaises(UnicodeEncodeError):
                tokenizer.encode("\ud83e")


class StreamTest(ExecutorCase):
    def test_pieces_make_the_whole(self):
        pieces = list(self.executor.stream(PROMPT, greedy(48)))
        last = pieces[-1]
        self.assertGreater(len(pieces), 1)
        self.assertEqual([piece.last for piece in pieces], [False] * (len(pieces) - 1) + [True])
        self.assertEqual({piece.request_id for piece in pieces}, {last.request_id})
        self.assertIs(last.finish_reason, FinishReason.LENGTH)
        self.assertEqual(sum(len(piece.tokens) for piece in pieces), 48)
        self.assertEqual(last.stats.generated_tokens, 48)
        self.assertGreater(last.stats.total_ns, 0)
        whole = list(self.executor.stream(Request(PROMPT, sampling=greedy(48), stream=False)))
        self.assertEqual([piece.text for piece in whole], ["".join(piece.text for piece in pieces)])
        self.assertTrue(whole[0].text.startswith(OPENING))

    def test_prompts(self):
        with trtllm.Tokenizer(engine) as tokenizer:
            tokens = tokenizer.encode(PROMPT, special_tokens=True)
        from_tokens = self.executor.generate(Request(tokens=tokens, sampling=greedy(12)))
        self.assertEqual(from_tokens, self.executor.generate(PROMPT, greedy(12)))
        self.assertIn("3 + 4 = 7", self.executor.generate(Request(chat=QUESTION, sampling=Sampling())))
        with self.assertRaises(TypeError):
            Request(PROMPT, tokens=tokens)

    def test_stops_bias_and_logprobs(self):
        stopped = Request(PROMPT, sampling=greedy(48), stop_strings=[" rabbit"])
        self.assertEqual(self.executor.generate(stopped), ", there was a little")
        sampling = greedy(1)
        sampling.logprobs = 3
        request = Request(PROMPT, sampling=sampling, logit_bias={7: 1000}, stop_tokens=[[7]], salt=b"\1\0\2")
        (response,) = self.executor.stream(request)
        self.assertEqual((response.tokens, response.finish_reason), ([7], FinishReason.STOP))
        ((token, logprob),) = response.logprobs
        self.assertEqual(token, 7)
        self.assertLessEqual(logprob, 0)
        self.assertEqual([len(row) for row in response.top_logprobs], [3])

    def test_time_limit(self):
        *_, last = self.executor.stream(Request(PROMPT, sampling=greedy(900), time_limit_ms=1))
        self.assertIs(last.finish_reason, FinishReason.TIME_LIMIT)

    def test_cancel(self):
        for response in self.executor.stream(PROMPT, greedy(900)):
            self.executor.cancel(response.request_id)
        self.assertIs(response.finish_reason, FinishReason.CANCELLED)
        self.fails(Status.NOT_FOUND, "request 1073741824", self.executor.cancel, 1 << 30)

    def test_abandoned_stream(self):
        stream = self.executor.stream(PROMPT, greedy(900))
        next(stream)
        stream.close()
        self.assertEqual((self.executor.stats.cancelled, self.executor.stats.requests), (1, 0))
        # What nobody iterates was never submitted.
        self.executor.stream(PROMPT, greedy(900)).close()
        self.assertEqual((self.executor.stats.cancelled, self.executor.stats.requests), (1, 0))

    def test_interrupted_stream(self):
        """A signal of the main thread gets through while it waits for a response that takes long."""

        def interrupt(*_):
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGALRM, interrupt)
        self.addCleanup(signal.signal, signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, 0.005)
        with self.assertRaises(KeyboardInterrupt):
            self.executor.generate(Request(PROMPT, sampling=greedy(900), stream=False))
        self.assertEqual((self.executor.stats.cancelled, self.executor.stats.requests), (1, 0))

    def test_many_streams_at_once(self):
        texts = run_threads(lambda _: self.executor.generate(PROMPT, greedy(48)), 12)
        self.assertEqual(len(set(texts)), 1)
        self.assertTrue(texts[0].startswith(OPENING))

    def test_refused_requests(self):
        sampling = greedy(8)
        sampling.top_p = -1
        self.fails(Status.INVALID_ARGUMENT, "top_p", self.executor.generate, PROMPT, sampling)
        self.fails(Status.INVALID_ARGUMENT, "100000", self.executor.generate, Request(tokens=[100000]))
        self.fails(Status.INVALID_ARGUMENT, "abacus", trtllm.Executor, engine, isa="abacus")

    def test_close_under_a_stream(self):
        stream = self.executor.stream(PROMPT, greedy(900))
        next(stream)
        self.executor.close()
        self.fails(Status.INVALID_HANDLE, "`executor`", list, stream)


class CallbackTest(ExecutorCase):
    def tearDown(self):
        """The library has let go of every callback."""
        self.executor.close()
        self.assertEqual(Listener._held, {})

    def test_callback(self):
        responses, threads = [], set()

        def receive(response):
            responses.append(response)
            threads.add(threading.get_ident())

        delivery = self.executor.submit(Request(PROMPT, sampling=greedy(48)), receive)
        delivery.done.result(LIMIT_S)
        self.assertEqual({response.request_id for response in responses}, {delivery.request_id})
        self.assertTrue(responses[-1].last)
        self.assertTrue("".join(response.text for response in responses).startswith(OPENING))
        self.assertEqual(len(threads), 1)
        self.assertNotIn(threading.get_ident(), threads)

    def test_calls_inside_a_callback(self):
        """One may submit and cancel there, and cannot wait for oneself."""
        inner = []

        def receive(response):
            if response.last:
                self.fails(Status.WOULD_DEADLOCK, "trtllm_executor_shutdown", self.executor.close)
                request = Request(PROMPT, sampling=greedy(900))
                inner.append(self.executor.submit(request, lambda other: self.executor.cancel(other.request_id)))

        self.executor.submit(Request(PROMPT, sampling=greedy(4)), receive).done.result(LIMIT_S)
        inner[0].done.result(LIMIT_S)
        self.assertEqual(self.executor.stats.cancelled, 1)

    def test_close_while_a_callback_runs(self):
        """Closing waits for it; none comes behind."""
        inside, finish_reasons = threading.Event(), []

        def receive(response):
            inside.set()
            time.sleep(0.02)
            finish_reasons.append(response.finish_reason)

        delivery = self.executor.submit(Request(PROMPT, sampling=greedy(900)), receive)
        inside.wait(LIMIT_S)
        self.executor.close()
        delivery.done.result(LIMIT_S)
        self.assertIs(finish_reasons[-1], FinishReason.CANCELLED)

    def test_exception_of_a_callback(self):
        calls = []

        def receive(response):
            calls.append(response)
            raise RuntimeError("hot")

        delivery = self.executor.submit(Request(PROMPT, sampling=greedy(900)), receive)
        with self.assertRaisesRegex(RuntimeError, "hot"):
            delivery.done.result(LIMIT_S)
        self.assertEqual((len(calls), self.executor.stats.cancelled, self.executor.stats.requests), (1, 1, 0))

    def test_callback_of_a_refused_request(self):
        request = Request(PROMPT, sampling=greedy(0))
        self.fails(Status.INVALID_ARGUMENT, "max_tokens", self.executor.submit, request, print)


def run_threads(function, count):
    """What the function gives for 0 to count - 1, each in a thread of its own."""
    results = [None] * count

    def run(i):
        results[i] = function(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


if __name__ == "__main__":
    unittest.main()
