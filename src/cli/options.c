#include "cli/options.h"

#include "base/error.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The program that lowbeam replaces spells its options with underscores. */
static bool same_name(const char *one, const char *name, size_t length) {
    size_t i = 0;
    for (; one[i] && i < length; i++)
        if (one[i] != name[i] && !((one[i] == '-' || one[i] == '_') && (name[i] == '-' || name[i] == '_')))
            return false;
    return !one[i] && i == length;
}

static const lb_option *find(const lb_option *options, size_t n, const char *name, size_t length, char letter) {
    for (size_t i = 0; i < n; i++) {
        const lb_option *o = &options[i];
        if (o->kind == LB_OPTION_HEADING)
            continue;
        if (letter ? o->letter == letter
                   : same_name(o->name, name, length) || (o->alias && same_name(o->alias, name, length)))
            return o;
    }
    return NULL;
}

static bool takes_argument(const lb_option *o) {
    return o->kind != LB_OPTION_TRUE && o->kind != LB_OPTION_FALSE && (o->kind != LB_OPTION_REFUSED || o->argument);
}

static lb_status set(const lb_option *o, const char *text, lb_error *error) {
    char *end = NULL;
    errno = 0;
    switch (o->kind) {
    case LB_OPTION_TEXT:
        *(const char **)o->value = text;
        return LB_STATUS_OK;
    case LB_OPTION_TRUE:
    case LB_OPTION_FALSE:
        *(bool *)o->value = o->kind == LB_OPTION_TRUE;
        return LB_STATUS_OK;
    case LB_OPTION_INT: {
        long v = strtol(text, &end, 10), most = o->most ? o->most : INT_MAX;
        if (end == text || *end || errno || v < o->least || v > most)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s %s: takes a whole number from %d to %ld",
                                o->name, text, o->least, most);
        *(int *)o->value = (int)v;
        return LB_STATUS_OK;
    }
    case LB_OPTION_SIZE: {
        long long v = strtoll(text, &end, 10);
        if (end == text || *end || errno || v < 0)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s %s: takes a whole number, 0 or more", o->name,
                                text);
        *(size_t *)o->value = (size_t)v;
        return LB_STATUS_OK;
    }
    case LB_OPTION_SECONDS: {
        double v = strtod(text, &end);
        if (end != text && *end == 's')
            end++;
        if (end == text || *end || !isfinite(v))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s %s: takes seconds, such as 12.5", o->name,
                                text);
        *(double *)o->value = v;
        return LB_STATUS_OK;
    }
    case LB_OPTION_SHARE: {
        double v = strtod(text, &end);
        if (end == text || *end || !(v >= 0 && v <= 1))
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s %s: takes a number from 0 to 1", o->name,
                                text);
        *(float *)o->value = (float)v;
        return LB_STATUS_OK;
    }
    case LB_OPTION_REFUSED:
        return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s: %s", o->name, o->help);
    case LB_OPTION_HEADING:
        break;
    }
    return lb_error_set(error, LB_STATUS_INTERNAL, "--%s", o->name);
}

lb_status lb_options_parse(const lb_option *options, size_t n, int argc, char **argv, const char **operands,
                           int *n_operands, int n_max, bool *help, lb_error *error) {
    *n_operands = 0;
    *help = false;
    bool only_operands = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i];
        if (only_operands || arg[0] != '-' || arg[1] == 0) {
            if (*n_operands == n_max)
                return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%s: one too many; see --help", arg);
            operands[(*n_operands)++] = arg;
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            only_operands = true;
            continue;
        }
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            *help = true;
            continue;
        }
        bool is_long = arg[1] == '-';
        const char *name = arg + (is_long ? 2 : 1), *value = is_long ? strchr(name, '=') : NULL;
        size_t length = value ? (size_t)(value - name) : strlen(name);
        const lb_option *o = find(options, n, name, length, is_long ? 0 : name[0]);
        if (!o)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "%.*s: there is no such option; see --help",
                                (int)(length + (is_long ? 2 : 1)), arg);
        if (value)
            value++;
        else if (!is_long && name[1])
            value = name + 1;
        if (takes_argument(o) && !value && i + 1 < argc)
            value = argv[++i];
        if (takes_argument(o) && !value)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s needs a value: %s", o->name, o->argument);
        if (!takes_argument(o) && value)
            return lb_error_set(error, LB_STATUS_INVALID_ARGUMENT, "--%s takes no value", o->name);
        lb_status status = set(o, value, error);
        if (status != LB_STATUS_OK)
            return status;
    }
    return LB_STATUS_OK;
}

void lb_options_print(const lb_option *options, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const lb_option *o = &options[i];
        if (o->kind == LB_OPTION_HEADING) {
            printf("\n%s\n", o->help);
            continue;
        }
        if (o->kind == LB_OPTION_REFUSED)
            continue;
        char left[96];
        snprintf(left, sizeof left, "%s%c%s--%s%s%s", o->letter ? "-" : "   ", o->letter ? o->letter : ' ',
                 o->letter ? ", " : "", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
        printf("  %-30s %s", left, o->help);
        switch (o->kind) {
        case LB_OPTION_INT:
            if (*(int *)o->value)
                printf(" [%d]", *(int *)o->value);
            break;
        case LB_OPTION_SECONDS:
            if (isfinite(*(double *)o->value))
                printf(" [%g]", *(double *)o->value);
            break;
        case LB_OPTION_SHARE:
            printf(" [%g]", (double)*(float *)o->value);
            break;
        case LB_OPTION_TEXT:
            if (*(const char **)o->value)
                printf(" [%s]", *(const char **)o->value);
            break;
        default:
            break;
        }
        printf("\n");
    }
}
