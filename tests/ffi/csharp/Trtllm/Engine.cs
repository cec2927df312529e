using System;

namespace Trtllm
{
    /// <summary>How weights come into memory.</summary>
    public enum LoadMode
    {
        /// <summary>The file is mapped, and must not be changed while it is in use.</summary>
        Map = 0,

        /// <summary>The file is read, and may then be changed or removed.</summary>
        Read = 1,
    }

    /// <summary>How an engine is loaded; begins from the defaults.</summary>
    public sealed class EngineConfig
    {
        public Progress Progress { get; set; }

        public LoadMode LoadMode { get; set; }

        /// <summary>Holds every weight against its checksum.</summary>
        public bool VerifyWeights { get; set; } = true;
    }

    /// <summary>What is to know about an engine.</summary>
    public sealed class EngineInfo
    {
        public string Architecture { get; internal set; }
        public uint[] EosTokens { get; internal set; }
        public ulong WeightBytes { get; internal set; }
        public ulong KVBytesPerToken { get; internal set; }

        /// <summary>The token that begins a text; -1 when there is none.</summary>
        public long BosToken { get; internal set; }

        public uint VocabSize { get; internal set; }
        public uint HiddenSize { get; internal set; }
        public uint Layers { get; internal set; }
        public uint MaxPositions { get; internal set; }
        public Precision Precision { get; internal set; }
        public Precision KVPrecision { get; internal set; }
        public Precision HeadPrecision { get; internal set; }
        public Target Target { get; internal set; }
    }

    /// <summary>A model compiled for this machine. Any thread may use it.</summary>
    public sealed class Engine : IDisposable
    {
        internal readonly EngineHandle Handle;

        /// <summary>Loads an engine file.</summary>
        public Engine(string path, EngineConfig config = null)
        {
            config = config ?? new EngineConfig();
            TrtllmException.Check(Native.trtllm_engine_config_init(
                Native.SizeOf<Native.trtllm_engine_config>(), out Native.trtllm_engine_config native));
            native.load_mode = (int)config.LoadMode;
            native.verify_weights = config.VerifyWeights ? 1 : 0;
            EngineHandle handle = null;
            ProgressCall.Run(config.Progress, (progress, userData) =>
            {
                native.progress = progress;
                native.user_data = userData;
                return Native.trtllm_engine_load(path, ref native, out handle);
            });
            Handle = handle;
        }

        /// <summary>The version of the loaded library.</summary>
        public static string LibraryVersion => Text.FromC(Native.trtllm_version_string());

        /// <summary>Throws unless the loaded library fits this assembly.</summary>
        public static void CheckVersion() =>
            TrtllmException.Check(Native.trtllm_check_version(Native.VersionMajor, Native.VersionMinor));

        public EngineInfo Info
        {
            get
            {
                // What the info points to lives as long as the handle, which another thread might dispose meanwhile.
                bool held = false;
                Handle.DangerousAddRef(ref held);
                try
                {
                    TrtllmException.Check(Native.trtllm_engine_get_info(
                        Handle, Native.SizeOf<Native.trtllm_engine_info>(), out Native.trtllm_engine_info info));
                    return Copy(info);
                }
                finally
                {
                    Handle.DangerousRelease();
                }
            }
        }

        /// <summary>The generation defaults of the checkpoint, to be changed and used.</summary>
        public Sampling Sampling
        {
            get
            {
                TrtllmException.Check(Native.trtllm_engine_get_sampling(
                    Handle, Native.SizeOf<Native.trtllm_sampling>(), out Native.trtllm_sampling sampling));
                return new Sampling(sampling);
            }
        }

        /// <summary>Describes the engine as JSON.</summary>
        public string Inspect() => Text.OfUnknownSize((byte[] buffer, UIntPtr capacity, out UIntPtr length) =>
            Native.trtllm_engine_inspect(Handle, buffer, capacity, out length));

        /// <summary>What was made from the engine keeps its weights until it is disposed too.</summary>
        public void Dispose() => Handle.Dispose();

        private static EngineInfo Copy(Native.trtllm_engine_info info) => new EngineInfo
        {
            Architecture = Text.FromC(info.architecture),
            EosTokens = Text.TokensFromC(info.eos_tokens, info.eos_token_count),
            WeightBytes = info.weight_bytes,
            KVBytesPerToken = info.kv_bytes_per_token,
            BosToken = info.bos_token,
            VocabSize = info.vocab_size,
            HiddenSize = info.hidden_size,
            Layers = info.layers,
            MaxPositions = info.max_positions,
            Precision = (Precision)info.precision,
            KVPrecision = (Precision)info.kv_precision,
            HeadPrecision = (Precision)info.head_precision,
            Target = (Target)info.target,
        };
    }
}
