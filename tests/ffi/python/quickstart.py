"""From a Hugging Face checkpoint to streamed text: quickstart.py CHECKPOINT ENGINE PROMPT"""

import sys

import trtllm


def main(checkpoint, path, prompt):
    trtllm.build(checkpoint, path)
    with trtllm.Engine(path) as engine, trtllm.Executor(engine) as executor:
        sampling = engine.sampling
        sampling.max_tokens = 300
        print(prompt, end="")
        for response in executor.stream(prompt, sampling):
            print(response.text, end="", flush=True)
        print()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: quickstart.py CHECKPOINT ENGINE PROMPT")
    try:
        main(*sys.argv[1:])
    except trtllm.Error as error:
        sys.exit(str(error))
