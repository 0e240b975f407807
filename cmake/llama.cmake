# libllama and ggml, from any install that find_package finds: CMAKE_PREFIX_PATH, or a system one. Defines the target
# lowbeam_llama, and with LOWBEAM_BUNDLE_LLAMA installs copies of the shared libraries in <libdir>/lowbeam.
set(LOWBEAM_LLAMA_WANTED "libllama 0.5.0 with ggml 0.25.3, as llama-cpp-python 0.3.36 carries them")

# What an earlier run found stays in the cache even when the prefix is another one now.
if(NOT "${CMAKE_PREFIX_PATH}|$ENV{CMAKE_PREFIX_PATH}" STREQUAL "${LOWBEAM_LLAMA_SEEN}")
    unset(llama_DIR CACHE)
    unset(ggml_DIR CACHE)
    unset(llama_LIBRARY CACHE)
    unset(LOWBEAM_LLAMA_API CACHE)
    set(LOWBEAM_LLAMA_SEEN "${CMAKE_PREFIX_PATH}|$ENV{CMAKE_PREFIX_PATH}" CACHE INTERNAL "")
endif()

find_package(ggml QUIET)
find_package(llama QUIET)
if(NOT TARGET llama OR NOT TARGET ggml::ggml)
    message(FATAL_ERROR "No llama.cpp found. 'make' builds one; or give an installed one with "
            "-DCMAKE_PREFIX_PATH=PREFIX. Needed: ${LOWBEAM_LLAMA_WANTED}.")
endif()
message(STATUS "llama.cpp ${LLAMA_VERSION}, ggml ${GGML_VERSION} (${GGML_AVAILABLE_BACKENDS}): ${llama_DIR}")

if(LOWBEAM_CUDA AND NOT "ggml-cuda" IN_LIST GGML_AVAILABLE_BACKENDS)
    message(FATAL_ERROR "LOWBEAM_CUDA is ON, but the llama.cpp in ${GGML_LIB_DIR} was built without CUDA "
            "(backends: ${GGML_AVAILABLE_BACKENDS}). 'make CUDA=1' builds one that has it.")
endif()
if("ggml-cuda" IN_LIST GGML_AVAILABLE_BACKENDS)
    # libggml-cuda.so needs the driver's libcuda.so.1, which a machine without a driver has under another name only
    # (stubs/libcuda.so of the toolkit). The linker looks there to resolve symbols; nothing of it is recorded.
    find_package(CUDAToolkit QUIET)
    find_library(LOWBEAM_CUDA_STUB cuda HINTS ${CUDAToolkit_LIBRARY_DIR} PATHS /usr/local/cuda/lib64
                 PATH_SUFFIXES stubs NO_CACHE)
    if(LOWBEAM_CUDA_STUB)
        file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/cuda-link)
        file(CREATE_LINK ${LOWBEAM_CUDA_STUB} ${CMAKE_BINARY_DIR}/cuda-link/libcuda.so.1 SYMBOLIC)
        set(link_options "-Wl,-rpath-link,${CMAKE_BINARY_DIR}/cuda-link")
        if(CUDAToolkit_LIBRARY_DIR)
            string(APPEND link_options ":${CUDAToolkit_LIBRARY_DIR}")
        endif()
    else()
        set(link_options "-Wl,--allow-shlib-undefined")
    endif()
    add_link_options(${link_options})
    set(CMAKE_REQUIRED_LINK_OPTIONS ${link_options})
endif()

# One program with the newest parts of the API that lowbeam uses: a llama.cpp that is too old or too new is named here
# and not by a page of compiler errors.
include(CheckCSourceCompiles)
set(CMAKE_REQUIRED_LIBRARIES llama ggml::ggml)
check_c_source_compiles("
    #include <ggml-backend.h>
    #include <gguf.h>
    #include <llama.h>
    int main(void) {
        struct llama_model_params model = llama_model_default_params();
        struct llama_context_params context = llama_context_default_params();
        size_t total, left;
        model.no_alloc = false;
        context.kv_unified = true;
        context.n_outputs_max = 8;
        context.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
        struct llama_model *loaded = llama_model_load_from_file(\"\", model);
        struct llama_context *made = llama_init_from_model(loaded, context);
        llama_memory_seq_cp(llama_get_memory(made), 0, 1, -1, -1);
        ggml_backend_dev_memory(ggml_backend_dev_get(0), &total, &left);
        return gguf_get_n_tensors(gguf_init_empty()) == 0;
    }" LOWBEAM_LLAMA_API)
unset(CMAKE_REQUIRED_LIBRARIES)
unset(CMAKE_REQUIRED_LINK_OPTIONS)
if(NOT LOWBEAM_LLAMA_API)
    message(FATAL_ERROR "The llama.cpp in ${llama_DIR} (libllama ${LLAMA_VERSION}, ggml ${GGML_VERSION}) does not have "
            "the functions that lowbeam uses. Needed: ${LOWBEAM_LLAMA_WANTED}; 'make' without LLAMA_PREFIX builds it.")
endif()

add_library(lowbeam_llama INTERFACE)
target_link_libraries(lowbeam_llama INTERFACE llama ggml::ggml)

option(LOWBEAM_BUNDLE_LLAMA "Install copies of libllama and ggml's libraries beside lowbeam's own" OFF)
if(LOWBEAM_BUNDLE_LLAMA)
    file(GLOB bundled ${GGML_LIB_DIR}/libllama.so.[0-9] ${GGML_LIB_DIR}/libggml.so.[0-9]
         ${GGML_LIB_DIR}/libggml-*.so.[0-9])
    foreach(library ${bundled})
        # A file under the name that the programs ask for, in place of a link and a file.
        get_filename_component(soname ${library} NAME)
        get_filename_component(file ${library} REALPATH)
        install(PROGRAMS ${file} DESTINATION ${CMAKE_INSTALL_LIBDIR}/lowbeam RENAME ${soname})
    endforeach()
endif()
