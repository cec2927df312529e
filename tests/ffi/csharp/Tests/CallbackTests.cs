using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using Trtllm;

internal static class CallbackTests
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(1);

    public static void Callback()
    {
        using (var executor = new Executor(Model.Engine))
        {
            var responses = new List<Response>();
            var threads = new HashSet<int>();
            Delivery delivery = executor.Submit(Model.Greedy(48), response =>
            {
                responses.Add(response);
                threads.Add(Thread.CurrentThread.ManagedThreadId);
                GC.Collect();
            });
            Check.That(delivery.Completion.Wait(Limit), "the callback was never freed");
            Check.That(responses.All(response => response.RequestId == delivery.RequestId) && responses.Last().Last);
            Check.That(string.Concat(responses.Select(response => response.Text)).StartsWith(Model.Opening));
            Check.That(threads.Count == 1 && !threads.Contains(Thread.CurrentThread.ManagedThreadId));
        }
    }

    /// <summary>Inside a callback one may submit and cancel, and cannot wait for oneself.</summary>
    public static void CallsInsideACallback()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Delivery inner = null;
            Delivery outer = executor.Submit(Model.Greedy(4), response =>
            {
                if (!response.Last) return;
                Check.Fails(executor.Dispose, Status.WouldDeadlock, "trtllm_executor_shutdown");
                inner = executor.Submit(Model.Greedy(900), other => executor.Cancel(other.RequestId));
            });
            Check.That(outer.Completion.Wait(Limit) && inner.Completion.Wait(Limit), "a callback was never freed");
            Check.Equal(1ul, executor.Stats.Cancelled);
        }
    }

    /// <summary>Disposing waits for the callback that runs; none comes behind it.</summary>
    public static void DisposeWhileACallbackRuns()
    {
        var executor = new Executor(Model.Engine);
        var inside = new ManualResetEventSlim();
        Response last = null;
        Delivery delivery = executor.Submit(Model.Greedy(900), response =>
        {
            inside.Set();
            Thread.Sleep(20);
            last = response;
        });
        inside.Wait();
        executor.Dispose();
        Check.That(delivery.Completion.Wait(Limit), "the callback was never freed");
        Check.Equal(FinishReason.Cancelled, last.FinishReason);
    }

    /// <summary>The library alone keeps a callback alive, and lets go of it at the end.</summary>
    public static void CallbacksLiveAsLongAsTheyAreNeeded()
    {
        using (var executor = new Executor(Model.Engine))
        {
            var held = new List<WeakReference>();
            var completions = new List<Task>();
            // In a thread of its own, so that nothing of it is left on this stack.
            var submitter = new Thread(() =>
            {
                for (int i = 0; i < 20; i++) completions.Add(SubmitListening(executor, held));
            });
            submitter.Start();
            submitter.Join();
            GC.Collect();
            Check.That(Task.WaitAll(completions.ToArray(), Limit), "a callback was never freed");
            GC.Collect();
            // The collector takes what looks like a reference on a stack for one.
            int alive = held.Count(reference => reference.IsAlive);
            Check.That(alive <= 10, alive + " of 20 are still held");
        }
    }

    private static Task SubmitListening(Executor executor, List<WeakReference> held)
    {
        var texts = new List<string>();
        held.Add(new WeakReference(texts));
        return executor.Submit(Model.Greedy(48), response => texts.Add(response.Text)).Completion;
    }

    public static void ExceptionOfACallback()
    {
        using (var executor = new Executor(Model.Engine))
        {
            int calls = 0;
            Delivery delivery = executor.Submit(Model.Greedy(900), response =>
            {
                calls++;
                throw new InvalidOperationException("hot");
            });
            AggregateException thrown = Check.Throws<AggregateException>(() => delivery.Completion.Wait(Limit));
            Check.Equal("hot", thrown.InnerException.Message);
            Check.Equal(1, calls);
            Check.That(executor.Stats.Cancelled == 1 && executor.Stats.Requests == 0);
        }
    }

    public static void CallbackOfARefusedRequest()
    {
        using (var executor = new Executor(Model.Engine))
        {
            Request request = Model.Greedy(0);
            Check.Fails(() => executor.Submit(request, response => { }), Status.InvalidArgument, "max_tokens");
        }
    }
}
