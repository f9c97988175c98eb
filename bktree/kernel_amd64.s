//go:build amd64 && !race

#include "textflag.h"

// Both kernels do what sweepGo does, one cache line at a time; the comments there
// and at type kernel say why that is right. Written by hand because there is little of it, and
// because Go's simd package is an experiment that lacks prefetches.
//
// Registers, in both:
//	R8   where the next address is     R12  lines to fetch ahead, of one bucket
//	R9   next flip                     R13  bits a fingerprint may differ
//	R10  flips left                    DI   where the next hit goes
//	R11  buckets to fetch ahead        SI   where the next full bucket's flip goes
//	BX   number of the line            DX   its address
//	CX   lanes to look at from here    AX   scratch, then the mask
//	R14  the table's memory            R15  points a bucket holds

// FETCH asks for the lines of the bucket R11 addresses on.
#define FETCH(line, none) \
	TESTQ R12, R12          \
	JZ   none               \
	MOVQ (R8)(R11*8), AX    \
	MOVQ R12, CX            \
line:                       \
	PREFETCHT0 (AX)         \
	ADDQ $64, AX            \
	DECQ CX                 \
	JNZ  line               \
none:

// BUCKET leaves the next bucket's address in DX and its first line in BX, and with
// LANES the lanes in use in CX; the flip is kept in full if the bucket is full. Lane 0
// is the count with a flag, and in front of the lanes it counts.
#define BUCKET() \
	MOVQ (R8), DX           \
	ADDQ $8, R8             \
	MOVQ DX, BX             \
	SUBQ R14, BX            \
	SHRQ $6, BX
#define LANES() \
	MOVWLZX (DX), CX        \
	ANDL $0x7fff, CX        \
	XORL AX, AX             \
	CMPL CX, R15            \
	SETEQ AX                \
	LEAQ (SI)(AX*4), SI     \
	INCL CX

// func sweepAVX512(s *sweep, hits *hit, full *uint32) (nhits, nfull int)
TEXT ·sweepAVX512(SB), NOSPLIT, $0-40
	MOVQ s+0(FP), AX
	MOVQ hits+8(FP), DI
	MOVQ full+16(FP), SI
	MOVQ 0(AX), R8
	MOVQ 8(AX), R9
	MOVQ 16(AX), R10
	MOVQ 24(AX), R14
	MOVQ 32(AX), R11
	MOVQ 64(AX), R12
	VPBROADCASTW 40(AX), Z0     // the query's next word in all 32 lanes
	MOVQ 48(AX), R13
	MOVQ 56(AX), R15            // capacity
	TESTQ R10, R10
	JZ   done512

bucket512:
	FETCH(fetch512, none512)
	MOVL  (R9), BX              // flip: key bits below, their number above
	MOVL  BX, (SI)              // in case the bucket is full
	ADDQ  $4, R9
	MOVL  BX, CX
	SHRL  $16, CX
	MOVL  R13, AX
	SUBL  CX, AX                // what the key differs by, the next word may not
	VPBROADCASTW AX, Z1
	BUCKET()
	LANES()
	VPXORD (DX), Z0, Z2
	VPOPCNTW Z2, Z2             // differing bits of each lane
	VPCMPUW $2, Z1, Z2, K1      // at most what is allowed
	KMOVD K1, AX
	ANDL  $-2, AX               // without lane 0

line512:
	CMPL  CX, $32
	JGE   all512
	BZHIL CX, AX, AX            // without the lanes not in use

all512:
	MOVL  BX, (DI)
	MOVL  AX, 4(DI)
	MOVL  R10, 8(DI)
	NEGL  AX                    // carry: the mask is not empty
	SBBQ  AX, AX
	ANDQ  $16, AX
	ADDQ  AX, DI                // keep the hit if so
	SUBL  $32, CX
	JLE   next512
	INCL  BX
	ADDQ  $64, DX
	VPXORD (DX), Z0, Z2
	VPOPCNTW Z2, Z2
	VPCMPUW $2, Z1, Z2, K1
	KMOVD K1, AX
	JMP   line512

next512:
	DECQ  R10
	JNZ   bucket512

done512:
	VZEROUPPER
	SUBQ  hits+8(FP), DI
	SHRQ  $4, DI
	MOVQ  DI, nhits+24(FP)
	SUBQ  full+16(FP), SI
	SHRQ  $2, SI
	MOVQ  SI, nfull+32(FP)
	RET

// Bits in each value of four bits, and the lower four bits of each byte.
DATA nibbles<>+0(SB)/8, $0x0302020102010100
DATA nibbles<>+8(SB)/8, $0x0403030203020201
DATA nibbles<>+16(SB)/8, $0x0302020102010100
DATA nibbles<>+24(SB)/8, $0x0403030203020201
GLOBL nibbles<>(SB), RODATA|NOPTR, $32

// COUNT leaves the number of bits in each 16-bit lane of x in x. The bytes'
// counts come from a table of sixteen; multiplying by one adds them in pairs.
#define COUNT(x, t) \
	VPSRLW $4, x, t      \
	VPAND  Y3, x, x      \
	VPAND  Y3, t, t      \
	VPSHUFB x, Y4, x     \
	VPSHUFB t, Y4, t     \
	VPADDB t, x, x       \
	VPMADDUBSW Y5, x, x

// LINE leaves the mask of the lanes within Y1-1 of the query in AX. Packing takes 128
// bits of either half in turn; the permutation puts them in order.
#define LINE() \
	VPXOR (DX), Y0, Y6      \
	VPXOR 32(DX), Y0, Y7    \
	COUNT(Y6, Y8)           \
	COUNT(Y7, Y8)           \
	VPCMPGTW Y6, Y1, Y6     \
	VPCMPGTW Y7, Y1, Y7     \
	VPACKSSWB Y7, Y6, Y6    \
	VPERMQ $0xd8, Y6, Y6    \
	VPMOVMSKB Y6, AX

// func sweepAVX2(s *sweep, hits *hit, full *uint32) (nhits, nfull int)
TEXT ·sweepAVX2(SB), NOSPLIT, $0-40
	MOVQ s+0(FP), AX
	MOVQ hits+8(FP), DI
	MOVQ full+16(FP), SI
	MOVQ 0(AX), R8
	MOVQ 8(AX), R9
	MOVQ 16(AX), R10
	MOVQ 24(AX), R14
	MOVQ 32(AX), R11
	MOVQ 64(AX), R12
	VPBROADCASTW 40(AX), Y0     // the query's next word in 16 lanes
	MOVQ 48(AX), R13
	MOVL $0x0f0f0f0f, CX
	VMOVD CX, X3
	VPBROADCASTD X3, Y3
	VMOVDQU nibbles<>(SB), Y4
	MOVL $0x01010101, CX
	VMOVD CX, X5
	VPBROADCASTD X5, Y5
	MOVQ 56(AX), R15            // last: where code is shared, a global's address goes through R15
	TESTQ R10, R10
	JZ   done2

bucket2:
	FETCH(fetch2, none2)
	MOVL  (R9), BX              // flip: key bits below, their number above
	MOVL  BX, (SI)              // in case the bucket is full
	ADDQ  $4, R9
	MOVL  BX, CX
	SHRL  $16, CX
	LEAL  1(R13), AX            // the comparison is "less than"
	SUBL  CX, AX
	VMOVD AX, X1
	VPBROADCASTW X1, Y1
	BUCKET()
	LANES()
	LINE()
	ANDL  $-2, AX

line2:
	CMPL  CX, $32
	JGE   all2
	BZHIL CX, AX, AX

all2:
	MOVL  BX, (DI)
	MOVL  AX, 4(DI)
	MOVL  R10, 8(DI)
	NEGL  AX
	SBBQ  AX, AX
	ANDQ  $16, AX
	ADDQ  AX, DI
	SUBL  $32, CX
	JLE   next2
	INCL  BX
	ADDQ  $64, DX
	LINE()
	JMP   line2

next2:
	DECQ  R10
	JNZ   bucket2

done2:
	VZEROUPPER
	SUBQ  hits+8(FP), DI
	SHRQ  $4, DI
	MOVQ  DI, nhits+24(FP)
	SUBQ  full+16(FP), SI
	SHRQ  $2, SI
	MOVQ  SI, nfull+32(FP)
	RET

// func fetchLine(p unsafe.Pointer)
TEXT ·fetchLine(SB), NOSPLIT, $0-8
	MOVQ p+0(FP), AX
	PREFETCHT0 (AX)
	RET

// func fetchBuckets(at *uintptr, n, lines int)
TEXT ·fetchBuckets(SB), NOSPLIT, $0-24
	MOVQ at+0(FP), SI
	MOVQ n+8(FP), DX
	MOVQ lines+16(FP), BX

fetchbucket:
	MOVQ (SI), AX
	ADDQ $8, SI
	MOVQ BX, CX

fetchline:
	PREFETCHT0 (AX)
	ADDQ $64, AX
	DECQ CX
	JNZ  fetchline
	DECQ DX
	JNZ  fetchbucket
	RET

// func ownLine(p unsafe.Pointer)
TEXT ·ownLine(SB), NOSPLIT, $0-8
	MOVQ p+0(FP), AX
	BYTE $0x0f; BYTE $0x0d; BYTE $0x08 // PREFETCHW (AX), which every x86-64 takes, if as a no-op
	RET
