/* ggml's and libllama's logs, which come in pieces, into lb_log line by line. */
#ifndef LB_NN_LOG_H
#define LB_NN_LOG_H

/* Has ggml log through lb_nn_route_log from now on; before the first call into ggml. May be called often. */
void lb_nn_log_start(void);

/* A ggml_log_callback but for the level's type, so that this header needs no ggml. */
void lb_nn_route_log(int level, const char *text, void *user);

/* The last two lines that were logged as errors since the last call ("cause; what failed of it"), "" when none: to be
 * put into an lb_error when a call of ggml or libllama failed. Good until the next call of the same thread. */
const char *lb_nn_last_log_error(void);

/* Calls fn with every whole line until it is set to NULL. */
void lb_nn_log_tap(void (*fn)(const char *line, void *user), void *user);

#endif
