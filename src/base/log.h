/* One log callback for the whole program: silent unless set (the library never prints by itself).
 *
 *     lb_log_set(write_to_stderr, NULL);
 *     lb_log(LB_LOG_INFO, "video", "clip=%s frames=%d time_s=%.3f", path, n, seconds);   // key=value, one line
 *
 * Logs of ggml, llama.cpp and libav are routed here by the stages that use them.
 */
#ifndef LB_BASE_LOG_H
#define LB_BASE_LOG_H

typedef enum lb_log_level {
    LB_LOG_DEBUG,
    LB_LOG_INFO,
    LB_LOG_WARN,
    LB_LOG_ERROR,
} lb_log_level;

typedef void (*lb_log_fn)(lb_log_level level, const char *stage, const char *message, void *user);

/* Process-wide; NULL silences. Set it before starting threads. The callback may be called from any thread. */
void lb_log_set(lb_log_fn fn, void *user);

/* stage: the folder's name ("video", "vlm"). message: printf format, without a trailing newline. */
void lb_log(lb_log_level level, const char *stage, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
