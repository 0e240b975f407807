/* A choice's bytes by device, phase and component. */
#include "memory/plan_internal.h"

#include <string.h>

void lb_plan_fill(lb_plan *plan, const lb_plan_sizes *s) {
    const lb_plan_choice *c = &plan->choice;
    const lb_plan_request *r = &plan->request;
    const bool vision_rests = c->rest_compute || c->rest_weights;
    memset(plan->bytes, 0, sizeof plan->bytes);
    for (int d = 0; d < c->n_devices; d++) {
        const bool vision = d == c->vision_device, detector = vision && r->detector;
        for (int p = 0; p < LB_PHASE_COUNT; p++) {
            const bool loads = p == LB_PHASE_LOAD, speaks = p == LB_PHASE_PROMPT || p == LB_PHASE_GENERATE;
            const bool encodes = p == LB_PHASE_ENCODE, detects = p == LB_PHASE_DETECT;
            size_t *b = plan->bytes[d][p];
            size_t pools = s->churn[d];
            b[LB_COMPONENT_LANGUAGE_WEIGHTS] = s->language_weights[d];
            /* the context is made when all weights are there: it belongs to the next phase then */
            if (speaks || (!c->rest_context && !loads)) {
                b[LB_COMPONENT_LANGUAGE_KV] = s->kv[d];
                b[LB_COMPONENT_LANGUAGE_COMPUTE] = s->language_compute[d];
                pools += s->language_pool[d];
            }
            /* at load the encoder is warmed up */
            if (vision && (!c->rest_weights || encodes || loads))
                b[LB_COMPONENT_VISION_WEIGHTS] = s->vision_weights;
            if (vision && (!vision_rests || encodes || loads))
                b[LB_COMPONENT_VISION_COMPUTE] = s->vision_compute;
            if (vision && (!c->rest_compute || encodes || loads))
                pools += s->vision_pool;
            if (detector) {
                b[LB_COMPONENT_DETECTOR_WEIGHTS] = s->detector_text + (loads ? s->text_encoder : 0);
                if (detects || !c->rest_weights)
                    b[LB_COMPONENT_DETECTOR_WEIGHTS] += s->detector_weights;
                if (detects || (!vision_rests && !loads)) /* the pictures' sizes come with the first video */
                    b[LB_COMPONENT_DETECTOR_COMPUTE] = s->detector_compute;
                if (loads && s->text_encoder_compute > b[LB_COMPONENT_DETECTOR_COMPUTE])
                    b[LB_COMPONENT_DETECTOR_COMPUTE] = s->text_encoder_compute;
                if (detects || !c->rest_compute)
                    pools += s->detector_pool;
            }
            b[LB_COMPONENT_LIBRARIES] = r->device[d].context_bytes + pools;
        }
    }
    plan->fits = true;
    for (int d = 0; d < c->n_devices; d++) {
        plan->peak_bytes[d] = 0;
        for (int p = 0; p < LB_PHASE_COUNT; p++) {
            size_t sum = 0;
            for (int i = 0; i < LB_COMPONENT_COUNT; i++)
                sum += plan->bytes[d][p][i];
            if (sum > plan->peak_bytes[d] && (p != LB_PHASE_DETECT || r->detector)) {
                plan->peak_bytes[d] = sum;
                plan->peak_phase[d] = (lb_phase)p;
            }
        }
        plan->fits &= plan->peak_bytes[d] <= r->device[d].budget_bytes;
    }
    plan->host_bytes[LB_COMPONENT_HOST_WEIGHTS] =
        s->host_layer_weights + (c->rest_weights ? s->vision_weights + (r->detector ? s->detector_weights : 0) : 0);
}
