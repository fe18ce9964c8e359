/*
 * The ops that are compiled once for a kind of processor, with the instructions that all of them have, and small rather than fast:
 * together they take less than a hundredth of a step. The others are in every body (body.c).
 */
#include "top-k.h"

#pragma clang attribute push(__attribute__((minsize)), apply_to = function)
#include "plain-ops.h"
#include "rounding-ops.h"
#include "v41-ops.h"
#include "vision-ops.h"
#pragma clang attribute pop
