//go:build !race

#include "textflag.h"

// The kernel does what sweepGo does, one cache line at a time; the comments there
// and at type kernel say why that is right.
//
// Registers:
//	R8   where the next address is     R12  lines to fetch ahead, of one bucket
//	R9   next flip                     R13  bits a fingerprint may differ
//	R10  flips left                    R14  points a bucket holds
//	R11  where the address is of the bucket to fetch ahead
//	R4   the table's memory            R1   where the next hit goes
//	R5   number of the line            R2   where the next full bucket goes
//	R6   its address                   R7   lanes to look at from here
//	R15  the mask                      R3   scratch
//	V16  the query's next word in eight lanes
//	V17  1, 2, 4 ... 128 in the bytes of either half
//	V18  the upper bit of each byte
//	V19  one more than the bits a fingerprint may differ, in each byte

// LINE leaves the mask of the lanes within V19-1 of the query in R15, and the address of
// the next line in R6. Loads are of 64-bit elements, which are never torn. The bits
// of each byte are counted, and those of a lane added in pairs, so that 32
// lanes are 32 bytes; where a difference is negative, the byte's place in the mask remains,
// and adding in pairs three times over puts the 32 places together.
#define LINE() \
	VLD1.P 64(R6), [V0.D2, V1.D2, V2.D2, V3.D2] \
	VEOR V16.B16, V0.B16, V0.B16   \
	VEOR V16.B16, V1.B16, V1.B16   \
	VEOR V16.B16, V2.B16, V2.B16   \
	VEOR V16.B16, V3.B16, V3.B16   \
	VCNT V0.B16, V0.B16            \
	VCNT V1.B16, V1.B16            \
	VCNT V2.B16, V2.B16            \
	VCNT V3.B16, V3.B16            \
	VADDP V1.B16, V0.B16, V4.B16   \
	VADDP V3.B16, V2.B16, V5.B16   \
	VSUB V19.B16, V4.B16, V4.B16   \
	VSUB V19.B16, V5.B16, V5.B16   \
	VCMTST V18.B16, V4.B16, V4.B16 \
	VCMTST V18.B16, V5.B16, V5.B16 \
	VAND V17.B16, V4.B16, V4.B16   \
	VAND V17.B16, V5.B16, V5.B16   \
	VADDP V5.B16, V4.B16, V4.B16   \
	VADDP V4.B16, V4.B16, V4.B16   \
	VADDP V4.B16, V4.B16, V4.B16   \
	VMOV V4.S[0], R15

// func sweepNEON(s *sweep, hits *hit, full *uint32) (nhits, nfull int)
TEXT ·sweepNEON(SB), NOSPLIT, $0-40
	MOVD s+0(FP), R0
	MOVD hits+8(FP), R1
	MOVD full+16(FP), R2
	MOVD 0(R0), R8
	MOVD 8(R0), R9
	MOVD 16(R0), R10
	MOVD 24(R0), R4
	MOVD 32(R0), R11
	ADD  R11<<3, R8, R11
	MOVD 64(R0), R12
	MOVD 40(R0), R3
	VDUP R3, V16.H8
	MOVD 48(R0), R13
	MOVD 56(R0), R14
	MOVD $0x8040201008040201, R3
	VDUP R3, V17.D2
	MOVD $0x80, R3
	VDUP R3, V18.B16
	CBZ  R10, done

bucket:
	CBZ  R12, none
	MOVD (R11), R6
	MOVD R12, R7

ahead:
	PRFM (R6), PLDL1KEEP
	ADD  $64, R6
	SUB  $1, R7
	CBNZ R7, ahead

none:
	ADD  $8, R11
	MOVWU.P 4(R9), R5           // flip: key bits below, their number above
	MOVW R10, (R2)              // in case the bucket is full
	SUB  R5>>24, R13, R3        // what the key differs by, the next word may not
	ADD  $1, R3
	VDUP R3, V19.B16
	MOVD.P 8(R8), R6
	SUB  R4, R6, R5
	LSR  $6, R5                 // its first line
	MOVHU (R6), R7              // lane 0: the count and a flag
	AND  $0x7fff, R7
	CMP  R14, R7
	CSET EQ, R3
	ADD  R3<<2, R2              // keep that if it is
	ADD  $1, R7                 // lane 0 is in front of the count's lanes
	LINE()
	AND  $0xfffffffe, R15       // without lane 0

line:
	CMP  $32, R7
	BGE  all
	MOVD $1, R3
	LSL  R7, R3
	SUB  $1, R3
	AND  R3, R15                // without the lanes not in use

all:
	MOVW R5, (R1)
	MOVW R15, 4(R1)
	MOVW R10, 8(R1)
	CMP  $0, R15
	CSET NE, R3
	ADD  R3<<4, R1              // keep the hit if the mask is not empty
	SUBS $32, R7
	BLE  next
	ADD  $1, R5
	LINE()
	B    line

next:
	SUB  $1, R10
	CBNZ R10, bucket

done:
	MOVD hits+8(FP), R3
	SUB  R3, R1
	LSR  $4, R1
	MOVD R1, nhits+24(FP)
	MOVD full+16(FP), R3
	SUB  R3, R2
	LSR  $2, R2
	MOVD R2, nfull+32(FP)
	RET

// func fetchLine(p unsafe.Pointer)
TEXT ·fetchLine(SB), NOSPLIT, $0-8
	MOVD p+0(FP), R0
	PRFM (R0), PLDL1KEEP
	RET

// func fetchBuckets(at *uintptr, n, lines int)
TEXT ·fetchBuckets(SB), NOSPLIT, $0-24
	MOVD at+0(FP), R0
	MOVD n+8(FP), R1
	MOVD lines+16(FP), R2

fetchbucket:
	MOVD.P 8(R0), R3
	MOVD R2, R4

fetchline:
	PRFM (R3), PLDL1KEEP
	ADD  $64, R3
	SUB  $1, R4
	CBNZ R4, fetchline
	SUB  $1, R1
	CBNZ R1, fetchbucket
	RET

// func ownLine(p unsafe.Pointer)
TEXT ·ownLine(SB), NOSPLIT, $0-8
	MOVD p+0(FP), R0
	PRFM (R0), PSTL1KEEP
	RET
