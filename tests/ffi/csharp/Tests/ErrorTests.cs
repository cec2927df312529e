using System;
using System.Collections.Concurrent;
using System.Linq;
using System.Runtime.InteropServices;
using System.Threading;
using Trtllm;

internal static class ErrorTests
{
    public static void ErrorNamesItsCulprit()
    {
        Check.Fails(() => new Engine("no/such.engine"), Status.NotFound, "no/such.engine");
        Check.Fails(() => new Engine("no/such-Grüße.engine"), Status.NotFound, "no/such-Grüße.engine");
    }

    public static void ErrorsBelongToTheirThread()
    {
        var wrong = new ConcurrentBag<string>();
        Thread[] threads = Enumerable.Range(0, 8).Select(i => new Thread(() =>
        {
            string path = "no/such-" + i + ".engine";
            for (int round = 0; round < 100; round++)
            {
                string message = Check.Throws<TrtllmException>(() => new Engine(path)).Message;
                if (!message.Contains(path)) wrong.Add(message);
            }
        })).ToArray();
        foreach (Thread thread in threads) thread.Start();
        foreach (Thread thread in threads) thread.Join();
        Check.That(wrong.IsEmpty, wrong.FirstOrDefault());
    }

    public static void Version()
    {
        Engine.CheckVersion();
        Check.That(Engine.LibraryVersion.StartsWith("0.1."), Engine.LibraryVersion);
    }

    /// <summary>
    /// A disposed object is refused by .NET, its bare handle by the library; others are none of its business.
    /// </summary>
    public static void DisposedHandles()
    {
        var engine = new Engine(Model.EnginePath);
        var executor = new Executor(engine);
        var tokenizer = new Tokenizer(engine);
        IntPtr bare = engine.Handle.DangerousGetHandle();
        engine.Dispose();
        engine.Dispose();
        Check.Throws<ObjectDisposedException>(() => engine.Sampling.ToString());
        Check.Throws<ObjectDisposedException>(() => engine.Info.ToString());
        Check.Throws<ObjectDisposedException>(() => new Executor(engine));
        Check.Fails(() => Native.trtllm_engine_destroy(bare), Status.InvalidHandle, "was destroyed");
        Check.Fails(() => Native.trtllm_request_destroy(bare), Status.InvalidHandle, "`request`");
        Check.Fails(() => new Response(new IntPtr(0x5a5a5a5a)), Status.InvalidHandle, "`response`");

        Check.That(executor.Generate(Model.Greedy(4)) != "", "what was made from an engine keeps it alive");
        executor.Dispose();
        executor.Dispose();
        Check.Throws<ObjectDisposedException>(() => executor.Generate(Model.Greedy(4)));
        Check.Throws<ObjectDisposedException>(() => executor.Cancel(1));
        tokenizer.Dispose();
        Check.Throws<ObjectDisposedException>(() => tokenizer.Encode(Model.Prompt, true));
    }

    /// <summary>The library writes as much as the struct is long, and all defaults are where they belong.</summary>
    public static void InitFillsTheStruct()
    {
        TrtllmException.Check(Native.trtllm_build_config_init(
            Native.SizeOf<Native.trtllm_build_config>(), out Native.trtllm_build_config build));
        Check.Equal(Native.SizeOf<Native.trtllm_build_config>(), build.struct_size);
        Check.Equal((int)Target.Cpu, build.target);
        TrtllmException.Check(Native.trtllm_engine_config_init(
            Native.SizeOf<Native.trtllm_engine_config>(), out Native.trtllm_engine_config engine));
        Check.Equal(Native.SizeOf<Native.trtllm_engine_config>(), engine.struct_size);
        Check.Equal(1, engine.verify_weights);
        TrtllmException.Check(Native.trtllm_executor_config_init(
            Native.SizeOf<Native.trtllm_executor_config>(), out Native.trtllm_executor_config executor));
        Check.Equal(Native.SizeOf<Native.trtllm_executor_config>(), executor.struct_size);
        Check.Equal(16u, executor.max_batch_size);
        Check.Equal(1, executor.prefix_reuse);
        var sampling = new Sampling();
        Check.That(sampling.TopP == 1 && sampling.MaxTokens == 128 && sampling.Logprobs == -1, sampling.MaxTokens);
    }
}
