/* Has calls fail on purpose. The program is linked with -Wl,--wrap=NAME for each name in wraps.h, so that lowbeam's own
 * calls (not those inside the shared libraries below it) pass through here, and each of them can be told to fail the
 * way the real one does.
 *
 *     faults_record();                    // a clean pass: which places call what, how often
 *     ...
 *     size_t n = faults_stop();           // places seen
 *     faults_arm(place, k, false);        // the k-th call from that place fails, once
 *     ...
 *     if (faults_hit()) ...               // it came to pass
 *     faults_stop();
 *
 * A place is the address that the call returns to. Calls of all threads count.
 */
#ifndef TEST_FAULTS_H
#define TEST_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

void faults_record(void);
/* Place: number below what faults_stop of the recording said; k from 0. onward: so do all wrapped calls after it. */
void faults_arm(size_t place, size_t k, bool onward);
size_t faults_stop(void);
bool faults_hit(void);

size_t faults_calls(size_t place); /* in the recording */
const char *faults_name(size_t place);
const void *faults_address(size_t place); /* as in the program's file, for addr2line */

#endif
