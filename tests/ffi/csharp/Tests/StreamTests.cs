using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using Trtllm;

internal static class StreamTests
{
    public static void PiecesMakeTheWhole()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Request request = Model.Greedy(48);
            List<Response> pieces = executor.Stream(request).ToList();
            Response last = pieces.Last();
            Check.That(pieces.Count > 1 && pieces.All(piece => piece.RequestId == last.RequestId), pieces.Count);
            Check.That(last.Last && pieces.Count(piece => piece.Last) == 1);
            Check.Equal(FinishReason.Length, last.FinishReason);
            Check.Equal(48, pieces.Sum(piece => piece.Tokens.Length));
            Check.That(last.Stats.GeneratedTokens == 48 && last.Stats.Total > TimeSpan.Zero);

            request.Streaming = false;
            string whole = executor.Generate(request);
            Check.Equal(whole, string.Concat(pieces.Select(piece => piece.Text)));
            Check.That(whole.StartsWith(Model.Opening), whole);
        }
    }

    public static void Prompts()
    {
        using (var executor = new Executor(Model.Engine))
        using (var tokenizer = new Tokenizer(Model.Engine))
        {
            Request request = Model.Greedy(12);
            request.Tokens = tokenizer.Encode(Model.Prompt, true);
            Check.Equal(executor.Generate(Model.Greedy(12)), executor.Generate(request));
            string answer = executor.Generate(new Request
            {
                Chat = "[{\"role\": \"user\", \"content\": \"What is 3 + 4?\"}]",
                Sampling = new Sampling(),
            });
            Check.That(answer.Contains("3 + 4 = 7"), answer);
        }
    }

    public static void StopsBiasAndLogprobs()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Request request = Model.Greedy(48);
            request.StopStrings.Add(" rabbit");
            Check.Equal(", there was a little", executor.Generate(request));

            request = Model.Greedy(1);
            request.Sampling.Logprobs = 3;
            request.LogitBias[7] = 1000;
            request.StopTokens.Add(new uint[] { 7 });
            request.Salt = new byte[] { 1, 0, 2 };
            Response response = executor.Stream(request).Single();
            Check.Equal(7u, response.Tokens.Single());
            Check.Equal(FinishReason.Stop, response.FinishReason);
            Check.That(response.Logprobs.Single().Token == 7 && response.Logprobs.Single().Logprob <= 0);
            Check.That(response.TopLogprobs.Single().Length == 3);
        }
    }

    public static void TimeLimit()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Request request = Model.Greedy(900);
            request.TimeLimit = TimeSpan.FromMilliseconds(1);
            Check.Equal(FinishReason.TimeLimit, executor.Stream(request).Last().FinishReason);
        }
    }

    public static void TokenCancels()
    {
        using (var executor = new Executor(Model.Engine))
        using (var source = new CancellationTokenSource())
        {
            Response last = null;
            Check.Throws<OperationCanceledException>(() =>
            {
                foreach (Response response in executor.Stream(Model.Greedy(900), source.Token))
                {
                    last = response;
                    source.Cancel();
                }
            });
            Check.Equal(FinishReason.Cancelled, last.FinishReason);
            Check.That(executor.Stats.Cancelled == 1 && executor.Stats.Requests == 0);
        }
    }

    public static void Cancel()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Response last = null;
            foreach (Response response in executor.Stream(Model.Greedy(900)))
            {
                last = response;
                executor.Cancel(response.RequestId);
            }
            Check.Equal(FinishReason.Cancelled, last.FinishReason);
            Check.Fails(() => executor.Cancel(1 << 30), Status.NotFound, "request 1073741824");
        }
    }

    /// <summary>An enumeration that is given up leaves nothing behind in the executor.</summary>
    public static void AbandonedStream()
    {
        using (var executor = new Executor(Model.Engine))
        {
            foreach (Response response in executor.Stream(Model.Greedy(900))) break;
            Check.That(executor.Stats.Cancelled == 1 && executor.Stats.Requests == 0);
            // What nobody enumerates was never submitted.
            executor.Stream(Model.Greedy(900));
            Check.Equal(0ul, executor.Stats.Requests);
        }
    }

    public static void ManyStreamsAtOnce()
    {
        using (var executor = new Executor(Model.Engine))
        {
            var texts = new string[12];
            Thread[] threads = Enumerable.Range(0, texts.Length)
                .Select(i => new Thread(() => texts[i] = executor.Generate(Model.Greedy(48)))).ToArray();
            foreach (Thread thread in threads) thread.Start();
            foreach (Thread thread in threads) thread.Join();
            Check.That(texts.All(text => text.StartsWith(Model.Opening)), texts.Distinct().Count());
        }
    }

    public static void RefusedRequests()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Request request = Model.Greedy(8);
            request.Sampling.TopP = -1;
            Check.Fails(() => executor.Generate(request), Status.InvalidArgument, "top_p");
            request = new Request { Tokens = new uint[] { 100000 } };
            Check.Fails(() => executor.Generate(request), Status.InvalidArgument, "100000");
            var config = new ExecutorConfig { Isa = "abacus" };
            Check.Fails(() => new Executor(Model.Engine, config), Status.InvalidArgument, "abacus");
        }
    }

    /// <summary>Disposing an executor brings back whoever waits in one of its streams.</summary>
    public static void DisposeUnderAStream()
    {
        var executor = new Executor(Model.Engine);
        var started = new ManualResetEventSlim();
        Response last = null;
        Exception thrown = null;
        var reader = new Thread(() =>
        {
            try
            {
                foreach (Response response in executor.Stream(Model.Greedy(900)))
                {
                    last = response;
                    started.Set();
                }
            }
            catch (Exception exception)
            {
                thrown = exception;
            }
        });
        reader.Start();
        started.Wait();
        executor.Dispose();
        Check.That(reader.Join(TimeSpan.FromMinutes(1)), "the reader waits for good");
        Check.That(thrown is ObjectDisposedException || last.FinishReason == FinishReason.Cancelled, thrown);
    }
}
