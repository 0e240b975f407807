# libllama and ggml, from any install that find_package finds: CMAKE_PREFIX_PATH, or a system one.
find_package(ggml REQUIRED)
find_package(llama REQUIRED)
