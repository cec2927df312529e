module trtllm

go 1.19
