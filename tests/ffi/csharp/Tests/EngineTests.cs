using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using Trtllm;

internal static class EngineTests
{
    private static string Beside(string name) => Path.Combine(Path.GetDirectoryName(Model.EnginePath), name);

    public static void EngineInfo()
    {
        EngineInfo info = Model.Engine.Info;
        Check.Equal("LlamaForCausalLM", info.Architecture);
        Check.That(info.Layers == 4 && info.HiddenSize == 256 && info.VocabSize == 1000 && info.MaxPositions == 1024);
        Check.That(info.EosTokens.SequenceEqual(new uint[] { 1, 2 }) && info.BosToken == 0);
        Check.That(info.Precision == Precision.BF16 && info.Target == Target.Cpu);
        Sampling sampling = Model.Engine.Sampling;
        Check.That(sampling.Temperature == 0.7f && sampling.TopK == 40 && sampling.TopP == 0.95f);
        Check.That(Model.Engine.Inspect().StartsWith("{") && Model.Engine.Inspect().Contains("LlamaForCausalLM"));
    }

    public static void Progress()
    {
        var phases = new HashSet<string>();
        double before = 0;
        Progress progress = (phase, fraction) =>
        {
            phases.Add(phase);
            before = fraction;
            return true;
        };
        string path = Beside("progress.engine");
        Builder.Build(Model.Checkpoint, path, new BuildConfig { Precision = Precision.F32, Progress = progress });
        Check.That(phases.Count > 1 && before == 1, before);
        using (var engine = new Engine(path, new EngineConfig { LoadMode = LoadMode.Read, Progress = progress }))
        {
            Check.Equal(Precision.F32, engine.Info.Precision);
        }
    }

    public static void ProgressCancels()
    {
        string path = Beside("cancelled.engine");
        var config = new BuildConfig { Progress = (phase, fraction) => false };
        Check.Fails(() => Builder.Build(Model.Checkpoint, path, config), Status.Cancelled, "");
        config.Progress = (phase, fraction) => throw new InvalidDataException("hot");
        Exception thrown = Check.Throws<InvalidDataException>(() => Builder.Build(Model.Checkpoint, path, config));
        Check.Equal("hot", thrown.Message);
        Check.That(!File.Exists(path), "a cancelled build leaves nothing");
    }

    public static void Tokenizer()
    {
        using (var tokenizer = new Tokenizer(Model.Engine))
        {
            const string text = "Grüße, 世界 🦊\0!";
            Check.Equal(text, tokenizer.Decode(tokenizer.Encode(text, false)));
            Check.Equal(0u, tokenizer.Encode(Model.Prompt, true)[0]);
            Check.Equal("", tokenizer.Decode(new uint[0]));
            Check.Equal("<|begin|><|user|>What is 3 + 4?<|end|><|assistant|>",
                tokenizer.ApplyChatTemplate("[{\"role\": \"user\", \"content\": \"What is 3 + 4?\"}]"));
            Check.Throws<ArgumentException>(() => tokenizer.Encode("\ud83e", false));
        }
    }
}
