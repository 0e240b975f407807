/* Which frames are left out when reading them takes longer than there is time. */
#ifndef LB_VIDEO_THIN_H
#define LB_VIDEO_THIN_H

/* What it costs to read the frame of slot `to` after that of `from`, in any unit. */
typedef double (*lb_thin_cost)(int from, int to, void *user);

/* The slot to be read after `slot` of n when there is time for `left` units of cost; n: for no further one. As far into
 * the video as there is time for, and as many frames on the way as that leaves, evenly spread: how a scene ends is what
 * most questions ask. The first slot is nobody's choice: it is read in any case. */
static inline int lb_thin_next(int slot, int n, double left, lb_thin_cost cost, void *user) {
    const int rest = n - 1 - slot;
    for (int reach = rest; reach >= 1; reach -= reach > 16 ? reach / 16 : 1)
        for (int m = reach; m >= 1; m -= m > 16 ? m / 16 : 1) {
            double sum = 0;
            int from = slot;
            for (int j = 1; j <= m && sum <= left; j++) {
                const int to = slot + (int)((long)j * reach / m);
                sum += cost(from, to, user);
                from = to;
            }
            if (sum <= left)
                return slot + reach / m;
        }
    return n;
}

#endif
