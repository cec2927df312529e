using System;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

[assembly: InternalsVisibleTo("Tests")]

namespace Trtllm
{
    /// <summary>The functions and structs of libtrtllm, named as in C.</summary>
    internal static class Native
    {
        /// <summary>The SONAME: before version 1.0 another minor version is another library.</summary>
        private const string Library = "libtrtllm.so.0.1";

        internal const uint VersionMajor = 0;
        internal const uint VersionMinor = 1;
        internal const long WaitForever = -1;

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate int ProgressCallback(IntPtr userData, IntPtr phase, double fraction);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void ResponseCallback(IntPtr userData, IntPtr response);

        [UnmanagedFunctionPointer(CallingConvention.Cdecl)]
        internal delegate void UserDataFree(IntPtr userData);

// The library fills these fields, of which the compiler knows nothing.
#pragma warning disable 649

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_sampling
        {
            internal UIntPtr struct_size;
            internal ulong seed;
            internal float temperature;
            internal uint top_k;
            internal float top_p;
            internal float min_p;
            internal float repetition_penalty;
            internal float presence_penalty;
            internal float frequency_penalty;
            internal uint min_tokens;
            internal uint max_tokens;
            internal uint n;
            internal int logprobs;
            internal int ignore_eos;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_engine_config
        {
            internal UIntPtr struct_size;
            internal IntPtr progress;
            internal IntPtr user_data;
            internal int load_mode;
            internal int verify_weights;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_engine_info
        {
            internal IntPtr architecture;
            internal IntPtr eos_tokens;
            internal UIntPtr eos_token_count;
            internal ulong weight_bytes;
            internal ulong kv_bytes_per_token;
            internal long bos_token;
            internal uint vocab_size;
            internal uint hidden_size;
            internal uint layers;
            internal uint max_positions;
            internal int precision;
            internal int target;
            internal int kv_precision;
            internal int head_precision;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_build_config
        {
            internal UIntPtr struct_size;
            internal IntPtr disabled_passes;
            internal UIntPtr disabled_pass_count;
            internal IntPtr progress;
            internal IntPtr user_data;
            internal ulong seed;
            internal uint max_positions;
            internal int precision;
            internal int dummy_weights;
            internal int target;
            internal int kv_precision;
            internal int head_precision;
            internal IntPtr archs;
            internal int invariant;
            internal int default_tactics;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_token_logprob
        {
            internal uint token;
            internal float logprob;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_response_view
        {
            internal IntPtr text;
            internal UIntPtr text_length;
            internal IntPtr tokens;
            internal UIntPtr token_count;
            internal IntPtr logprobs;
            internal IntPtr top_logprobs;
            internal UIntPtr top_logprobs_per_token;
            internal IntPtr context_logits;
            internal UIntPtr context_logits_count;
            internal IntPtr generation_logits;
            internal UIntPtr generation_logits_count;
            internal IntPtr error_message;
            internal ulong request_id;
            internal uint sequence;
            internal int finish_reason;
            internal int status;
            internal int last;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_request_stats
        {
            internal ulong prompt_tokens;
            internal ulong cached_tokens;
            internal ulong generated_tokens;
            internal ulong preemptions;
            internal ulong queued_ns;
            internal ulong first_token_ns;
            internal ulong total_ns;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_executor_config
        {
            internal UIntPtr struct_size;
            internal ulong memory_budget;
            internal ulong kv_tokens;
            internal IntPtr isa;
            internal uint max_batch_size;
            internal uint max_batch_tokens;
            internal uint max_sequence_tokens;
            internal uint max_queue;
            internal uint max_pending_responses;
            internal uint threads;
            internal int prefix_reuse;
            internal uint device;
            internal int refuse_stored_kernels;
            internal uint reserved;
        }

        [StructLayout(LayoutKind.Sequential)]
        internal struct trtllm_executor_stats
        {
            internal ulong iterations;
            internal ulong completed;
            internal ulong cancelled;
            internal ulong expired;
            internal ulong failed;
            internal ulong preemptions;
            internal ulong generated_tokens;
            internal ulong requests;
            internal ulong prefix_lookup_tokens;
            internal ulong prefix_hit_tokens;
            internal ulong running;
            internal ulong waiting;
            internal ulong batch_tokens;
            internal ulong kv_blocks_used;
            internal ulong kv_blocks_cached;
            internal ulong kv_blocks_free;
            internal ulong last_step_ns;
            internal ulong busy_ns;
            internal ulong memory_bytes;
            internal ulong last_step_device_ns;
            internal ulong device_busy_ns;
            internal ulong device_idle_ns;
        }

#pragma warning restore 649

        /// <summary>The size of a struct, as the library wants to be told it.</summary>
        internal static UIntPtr SizeOf<T>() => (UIntPtr)Marshal.SizeOf(typeof(T));

        // Status and version.

        [DllImport(Library)]
        internal static extern IntPtr trtllm_last_error_message();

        [DllImport(Library)]
        internal static extern Status trtllm_check_version(uint major, uint minor);

        [DllImport(Library)]
        internal static extern IntPtr trtllm_version_string();

        // Engine.

        [DllImport(Library)]
        internal static extern Status trtllm_build_config_init(UIntPtr struct_size, out trtllm_build_config config);

        [DllImport(Library)]
        internal static extern Status trtllm_build(
            [MarshalAs(UnmanagedType.LPUTF8Str)] string checkpoint_path,
            [MarshalAs(UnmanagedType.LPUTF8Str)] string engine_path,
            ref trtllm_build_config config);

        [DllImport(Library)]
        internal static extern Status trtllm_engine_config_init(UIntPtr struct_size, out trtllm_engine_config config);

        [DllImport(Library)]
        internal static extern Status trtllm_engine_load(
            [MarshalAs(UnmanagedType.LPUTF8Str)] string path, ref trtllm_engine_config config, out EngineHandle engine);

        [DllImport(Library)]
        internal static extern Status trtllm_engine_destroy(IntPtr engine);

        [DllImport(Library)]
        internal static extern Status trtllm_engine_get_info(
            EngineHandle engine, UIntPtr info_size, out trtllm_engine_info info);

        [DllImport(Library)]
        internal static extern Status trtllm_engine_get_sampling(
            EngineHandle engine, UIntPtr sampling_size, out trtllm_sampling sampling);

        [DllImport(Library)]
        internal static extern Status trtllm_engine_inspect(
            EngineHandle engine, [Out] byte[] buffer, UIntPtr capacity, out UIntPtr length);

        [DllImport(Library)]
        internal static extern Status trtllm_sampling_init(UIntPtr struct_size, out trtllm_sampling sampling);

        // Tokenizer.

        [DllImport(Library)]
        internal static extern Status trtllm_tokenizer_create(EngineHandle engine, out TokenizerHandle tokenizer);

        [DllImport(Library)]
        internal static extern Status trtllm_tokenizer_destroy(IntPtr tokenizer);

        [DllImport(Library)]
        internal static extern Status trtllm_tokenizer_encode(
            TokenizerHandle tokenizer, byte[] text, UIntPtr length, int add_special_tokens,
            [Out] uint[] tokens, UIntPtr capacity, out UIntPtr count);

        [DllImport(Library)]
        internal static extern Status trtllm_tokenizer_decode(
            TokenizerHandle tokenizer, uint[] tokens, UIntPtr count, int skip_special_tokens,
            [Out] byte[] buffer, UIntPtr capacity, out UIntPtr length);

        [DllImport(Library)]
        internal static extern Status trtllm_tokenizer_apply_chat_template(
            TokenizerHandle tokenizer, byte[] messages, UIntPtr messages_length, int add_generation_prompt,
            [Out] byte[] buffer, UIntPtr capacity, out UIntPtr length);

        // Request.

        [DllImport(Library)]
        internal static extern Status trtllm_request_create(out RequestHandle request);

        [DllImport(Library)]
        internal static extern Status trtllm_request_destroy(IntPtr request);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_text(RequestHandle request, byte[] text, UIntPtr length);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_tokens(RequestHandle request, uint[] tokens, UIntPtr count);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_chat(RequestHandle request, byte[] messages, UIntPtr length);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_sampling(RequestHandle request, ref trtllm_sampling sampling);

        [DllImport(Library)]
        internal static extern Status trtllm_request_add_stop_string(
            RequestHandle request, byte[] text, UIntPtr length);

        [DllImport(Library)]
        internal static extern Status trtllm_request_add_stop_tokens(
            RequestHandle request, uint[] tokens, UIntPtr count);

        [DllImport(Library)]
        internal static extern Status trtllm_request_add_logit_bias(RequestHandle request, uint token, float bias);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_stream(RequestHandle request, int stream);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_time_limit(RequestHandle request, ulong milliseconds);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_salt(RequestHandle request, byte[] salt, UIntPtr length);

        [DllImport(Library)]
        internal static extern Status trtllm_request_set_callback(
            RequestHandle request, ResponseCallback callback, IntPtr user_data, UserDataFree user_data_free);

        // Response. A callback borrows its response, so these take bare handles.

        [DllImport(Library)]
        internal static extern Status trtllm_response_get(
            IntPtr response, UIntPtr view_size, out trtllm_response_view view);

        [DllImport(Library)]
        internal static extern Status trtllm_response_get_stats(
            IntPtr response, UIntPtr stats_size, out trtllm_request_stats stats);

        [DllImport(Library)]
        internal static extern Status trtllm_response_destroy(IntPtr response);

        // Executor.

        [DllImport(Library)]
        internal static extern Status trtllm_executor_config_init(
            UIntPtr struct_size, out trtllm_executor_config config);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_create(
            EngineHandle engine, ref trtllm_executor_config config, out ExecutorHandle executor);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_destroy(IntPtr executor);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_shutdown(ExecutorHandle executor);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_submit(
            ExecutorHandle executor, RequestHandle request, out ulong request_id);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_cancel(ExecutorHandle executor, ulong request_id);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_await(
            ExecutorHandle executor, ulong request_id, long timeout_ms, out IntPtr response);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_check_health(ExecutorHandle executor);

        [DllImport(Library)]
        internal static extern Status trtllm_executor_get_stats(
            ExecutorHandle executor, UIntPtr stats_size, out trtllm_executor_stats stats);
    }
}
