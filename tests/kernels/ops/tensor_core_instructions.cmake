# Kernels that are meant for the tensor cores use them: their PTX has mma.sync and ldmatrix, and,
# where cuobjdump is installed, the machine code of the library has HMMA.
# Called with NVCC, SOURCE_DIR, LIBRARY.
foreach(kernel attention_forward attention_backward attention_decode grouped_gemm)
  set(ptx ${CMAKE_CURRENT_BINARY_DIR}/${kernel}.ptx)
  execute_process(
    COMMAND ${NVCC} -std=c++20 -ptx -arch=compute_80 -I${SOURCE_DIR}
      ${SOURCE_DIR}/kernels/cuda/${kernel}.cu -o ${ptx}
    RESULT_VARIABLE status ERROR_VARIABLE complaint)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "nvcc did not compile ${kernel}.cu: ${complaint}")
  endif()
  foreach(instruction "mma.sync.aligned.m16n8k16.row.col.f32.bf16" "ldmatrix.sync.aligned.m8n8.x4"
          "cp.async.cg.shared.global")
    string(REPLACE "." "\\." pattern ${instruction})
    file(STRINGS ${ptx} found REGEX ${pattern})
    list(LENGTH found count)
    if(count EQUAL 0)
      message(FATAL_ERROR "${kernel}.cu has no ${instruction}")
    endif()
    message(STATUS "${kernel}: ${count} ${instruction}")
  endforeach()
endforeach()

find_program(CUOBJDUMP cuobjdump HINTS ENV CUDA_HOME PATHS /usr/local/cuda PATH_SUFFIXES bin)
if(NOT CUOBJDUMP)
  message(STATUS "cuobjdump is not installed: the machine code was not looked at")
  return()
endif()
execute_process(COMMAND ${CUOBJDUMP} -sass ${LIBRARY} OUTPUT_VARIABLE sass RESULT_VARIABLE status)
string(REGEX MATCHALL "HMMA\\.16816" found "${sass}")
list(LENGTH found count)
if(NOT status EQUAL 0 OR count EQUAL 0)
  message(FATAL_ERROR "the machine code of ${LIBRARY} has no HMMA")
endif()
message(STATUS "machine code: ${count} HMMA")
