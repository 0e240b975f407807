#include "cli/detect_output.h"

#include "base/error.h"
#include "image/draw.h"
#include "run/findings.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The file's own name; of a video with the frame's number behind it. */
static void frame_name(const lb_detect_frame *f, char name[NAME_MAX + 32]) {
    if (f->is_video)
        snprintf(name, NAME_MAX + 32, "%s_%06lld", base_name(f->file), (long long)f->index);
    else
        snprintf(name, NAME_MAX + 32, "%s", base_name(f->file));
}

static json_t *describe(const lb_detect_frame *f, const lb_labels *labels) {
    json_t *frame = lb_findings_json(f->detections, labels, f->index, f->time_s, f->view.width, f->view.height);
    json_t *line = json_pack("{s:s}", "file", f->file);
    if (!frame || !line || json_object_update(line, frame) != 0) {
        json_decref(line);
        line = NULL;
    }
    json_decref(frame);
    return line;
}

static void print_plain(const lb_detect_frame *f, const lb_labels *labels) {
    printf("%s", f->file);
    if (f->is_video)
        printf(", frame %lld (%.2f s)", (long long)f->index, f->time_s);
    printf(": %d %s\n", f->detections->n, f->detections->n == 1 ? "box" : "boxes");
    for (int i = 0; i < f->detections->n; i++) {
        const lb_detection *d = &f->detections->item[i];
        printf("  %.3f  %s  [%.1f, %.1f, %.1f, %.1f]\n", (double)d->score, labels->label[d->label], (double)d->box[0],
               (double)d->box[1], (double)d->box[2], (double)d->box[3]);
    }
}

lb_status lb_detect_print(const lb_detect_frame *f, const lb_labels *labels, bool json, lb_error *error) {
    if (json) {
        json_t *description = describe(f, labels);
        char *text = description ? json_dumps(description, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
        json_decref(description);
        if (!text)
            return lb_error_set(error, LB_STATUS_FORMAT, "%s: the name is not UTF-8", f->file);
        puts(text);
        free(text);
    } else {
        print_plain(f, labels);
    }
    if (fflush(stdout) != 0 || ferror(stdout))
        return lb_error_set(error, LB_STATUS_IO, "stdout: %s", strerror(errno));
    return LB_STATUS_OK;
}

lb_status lb_detect_draw(const lb_detect_frame *f, const lb_labels *labels, const char *folder, lb_error *error) {
    char name[NAME_MAX + 32], path[PATH_MAX], text[256];
    frame_name(f, name);
    if ((size_t)snprintf(path, sizeof path, "%s/%s.boxes.png", folder, name) >= sizeof path)
        return lb_error_set(error, LB_STATUS_IO, "%s/%s: the path is too long", folder, name);
    const size_t row = (size_t)f->view.width * 3;
    lb_image image = {malloc(row * (size_t)f->view.height), f->view.width, f->view.height};
    if (!image.data)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "%s: no memory for the picture", path);
    for (int y = 0; y < f->view.height; y++)
        memcpy(image.data + (size_t)y * row, f->view.data + (size_t)y * f->view.stride, row);
    /* The best last, so that no weaker one covers its label. */
    for (int i = f->detections->n - 1; i >= 0; i--) {
        const lb_detection *d = &f->detections->item[i];
        int box[4];
        uint8_t rgb[3];
        lb_detection_pixels(d, box);
        lb_draw_colour(d->label, rgb);
        snprintf(text, sizeof text, "%.200s %.2f", labels->label[d->label], (double)d->score);
        lb_draw_box(&image, box, rgb, text);
    }
    lb_status status = lb_image_write_png(path, (lb_image_view){image.data, image.width, image.height, row}, error);
    lb_image_free(&image);
    return status;
}

lb_status lb_coco_begin(const lb_labels *labels, json_t **coco, lb_error *error) {
    json_t *categories = json_array();
    for (int i = 0; i < labels->n; i++)
        json_array_append_new(categories,
                              json_pack("{s:i, s:s, s:s}", "id", i + 1, "name", labels->label[i], "supercategory", ""));
    *coco = json_pack("{s:{s:s}, s:[], s:[], s:o}", "info", "description", "lowbeam detect", "images", "annotations",
                      "categories", categories);
    if (!*coco)
        return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the COCO file");
    return LB_STATUS_OK;
}

static double between(double v, double most) {
    return v < 0 ? 0 : v > most ? most : v;
}

lb_status lb_coco_add(json_t *coco, const lb_detect_frame *f, lb_error *error) {
    json_t *images = json_object_get(coco, "images"), *annotations = json_object_get(coco, "annotations");
    char name[NAME_MAX + 32];
    frame_name(f, name);
    const json_int_t id = (json_int_t)json_array_size(images) + 1;
    json_t *image = json_pack("{s:I, s:s, s:i, s:i}", "id", id, "file_name", f->is_video ? name : base_name(f->file),
                              "width", f->view.width, "height", f->view.height);
    if (json_array_append_new(images, image) != 0)
        return lb_error_set(error, LB_STATUS_FORMAT, "%s: the name is not UTF-8", f->file);
    for (int i = 0; i < f->detections->n; i++) {
        const lb_detection *d = &f->detections->item[i];
        const double x0 = between((double)d->box[0], f->view.width), y0 = between((double)d->box[1], f->view.height),
                     x1 = between((double)d->box[2], f->view.width), y1 = between((double)d->box[3], f->view.height);
        if (x1 <= x0 || y1 <= y0) /* outside the picture */
            continue;
        json_t *one =
            json_pack("{s:I, s:I, s:i, s:[f,f,f,f], s:f, s:i, s:f}", "id", (json_int_t)json_array_size(annotations) + 1,
                      "image_id", id, "category_id", d->label + 1, "bbox", x0, y0, x1 - x0, y1 - y0, "area",
                      (x1 - x0) * (y1 - y0), "iscrowd", 0, "score", (double)d->score);
        if (json_array_append_new(annotations, one) != 0)
            return lb_error_set(error, LB_STATUS_OUT_OF_MEMORY, "no memory for the COCO file");
    }
    return LB_STATUS_OK;
}

lb_status lb_coco_write(const json_t *coco, const char *path, lb_error *error) {
    FILE *file = fopen(path, "wb");
    if (!file)
        return lb_error_set(error, LB_STATUS_IO, "%s: %s", path, strerror(errno));
    int bad = json_dumpf(coco, file, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    bad |= fputc('\n', file) == EOF;
    bad |= fclose(file) != 0;
    return bad ? lb_error_set(error, LB_STATUS_IO, "%s: %s", path, strerror(errno)) : LB_STATUS_OK;
}
