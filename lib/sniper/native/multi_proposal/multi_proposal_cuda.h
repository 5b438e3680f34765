// Launchers of MultiProposal in libsniper_cuda.so; common/cuda_api.h says what they promise.
#ifndef SNIPER_NATIVE_MULTI_PROPOSAL_MULTI_PROPOSAL_CUDA_H_
#define SNIPER_NATIVE_MULTI_PROPOSAL_MULTI_PROPOSAL_CUDA_H_

#include "common/cuda_api.h"
#include "multi_proposal/multi_proposal.h"

SNIPER_CUDA_API int sniper_multi_proposal_workspace(const sniper::MultiProposalParams* params,
                                                    std::size_t* bytes);

// As multi_proposal_cpu, with the same bits.
SNIPER_CUDA_API int sniper_multi_proposal_forward(const sniper::MultiProposalParams* params,
                                                  const float* cls_prob, const float* bbox_pred,
                                                  const float* im_info, float* rois, float* scores,
                                                  void* workspace, void* stream);

#endif  // SNIPER_NATIVE_MULTI_PROPOSAL_MULTI_PROPOSAL_CUDA_H_
