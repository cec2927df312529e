using System;
using System.Text;
using Trtllm;

/// <summary>From a Hugging Face checkpoint to streamed text: Quickstart.exe CHECKPOINT ENGINE PROMPT</summary>
internal static class Quickstart
{
    private static int Main(string[] arguments)
    {
        if (arguments.Length != 3)
        {
            Console.Error.WriteLine("usage: Quickstart.exe CHECKPOINT ENGINE PROMPT");
            return 2;
        }
        // Whatever the locale, no letter of the text becomes a question mark.
        Console.OutputEncoding = new UTF8Encoding(false);
        try
        {
            Tell(arguments[0], arguments[1], arguments[2]);
            return 0;
        }
        catch (TrtllmException exception)
        {
            Console.Error.WriteLine(exception.Message);
            return 1;
        }
    }

    private static void Tell(string checkpoint, string path, string prompt)
    {
        Engine.CheckVersion();
        Builder.Build(checkpoint, path);
        using (var engine = new Engine(path))
        using (var executor = new Executor(engine))
        {
            Sampling sampling = engine.Sampling;
            sampling.MaxTokens = 300;
            Console.Write(prompt);
            foreach (Response response in executor.Stream(new Request(prompt) { Sampling = sampling }))
            {
                Console.Write(response.Text);
            }
            Console.WriteLine();
        }
    }
}
