using System;
using System.Runtime.InteropServices;

namespace Trtllm
{
    /// <summary>How an engine stores its numbers.</summary>
    public enum Precision
    {
        Auto = 0,
        F32 = 1,
        BF16 = 2,
        F16 = 3,
        FP8 = 4,
        INT8 = 5,
        INT8_W8A8 = 6,
    }

    /// <summary>The device class of an engine.</summary>
    public enum Target
    {
        Cpu = 1,
        Cuda = 2,
    }

    /// <summary>How an engine is built; begins from the defaults.</summary>
    public sealed class BuildConfig
    {
        public Progress Progress { get; set; }
        public Precision Precision { get; set; }
        public Precision KVPrecision { get; set; }
        public Precision HeadPrecision { get; set; }
        public Target Target { get; set; } = Target.Cpu;

        /// <summary>Most tokens of a request; 0: as the checkpoint says.</summary>
        public uint MaxPositions { get; set; }

        /// <summary>The checkpoint is the path of a lone config.json; weights are random, by the key Seed.</summary>
        public bool DummyWeights { get; set; }

        public ulong Seed { get; set; }

        /// <summary>Compute capabilities, e.g. 80;90a; null: that of the first GPU here.</summary>
        public string Archs { get; set; }

        /// <summary>On a GPU too, a request's bits depend on nothing but itself.</summary>
        public bool Invariant { get; set; }

        /// <summary>Kernels are chosen by rule and not by measurement.</summary>
        public bool DefaultTactics { get; set; }
    }

    public static class Builder
    {
        /// <summary>
        /// Builds an engine file from the folder of a Hugging Face checkpoint; it appears when it is complete.
        /// </summary>
        public static void Build(string checkpointPath, string enginePath, BuildConfig config = null)
        {
            config = config ?? new BuildConfig();
            TrtllmException.Check(Native.trtllm_build_config_init(
                Native.SizeOf<Native.trtllm_build_config>(), out Native.trtllm_build_config native));
            native.precision = (int)config.Precision;
            native.kv_precision = (int)config.KVPrecision;
            native.head_precision = (int)config.HeadPrecision;
            native.target = (int)config.Target;
            native.max_positions = config.MaxPositions;
            native.dummy_weights = config.DummyWeights ? 1 : 0;
            native.seed = config.Seed;
            native.invariant = config.Invariant ? 1 : 0;
            native.default_tactics = config.DefaultTactics ? 1 : 0;
            native.archs = Marshal.StringToHGlobalAnsi(config.Archs);
            try
            {
                ProgressCall.Run(config.Progress, (progress, userData) =>
                {
                    native.progress = progress;
                    native.user_data = userData;
                    return Native.trtllm_build(checkpointPath, enginePath, ref native);
                });
            }
            finally
            {
                Marshal.FreeHGlobal(native.archs);
            }
        }
    }
}
