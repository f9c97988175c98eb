//go:build amd64 && !race

#include "textflag.h"

// The kernels do what sweepGo does, one cache line at a time; the comments there
// and at type kernel say why that is right. Written by hand because there is little of it, and
// because Go's simd package is an experiment that lacks prefetches.
//
// Registers, in all:
//	R8   where the next address is     R12  lines to fetch ahead, of one bucket
//	R9   points a bucket holds         R13  lines to fetch ahead, those left
//	R10  buckets left                  DI   where the next hit goes
//	R11  buckets to fetch ahead        SI   where the next full bucket goes
//	BX   scratch                       DX   address of the line
//	CX   lanes to look at from here    AX   scratch, then the mask
//	R14  the table's memory            R15  buckets left when their keys begin to differ by a bit more

// SWEEP is a kernel, of which LINE leaves the mask of the lanes within the allowed distance in AX, and LESS allows
// a bit less. Hits are rare, so it branches to note them; full buckets are rarer.
#define SWEEP(LINE, LESS) \
	MOVQ s+0(FP), AX        \
	MOVQ hits+8(FP), DI     \
	MOVQ full+16(FP), SI    \
	MOVQ 0(AX), R8          \
	MOVQ 16(AX), R10        \
	MOVQ 24(AX), R14        \
	MOVQ 32(AX), R11        \
	MOVQ 56(AX), R9         \
	MOVQ 64(AX), R12        \
	TESTQ R10, R10          \
	JZ   done               \
	MOVQ $0, 72(AX)         \
	JMP  shell              \
bucket:                     \
	CMPQ R10, R15           \
	JEQ  farther            \
near:                       \
	MOVQ R12, R13           \
	TESTQ R13, R13          \
	JZ   fetched            \
	MOVQ (R8)(R11*8), BX    \
fetch:                      \
	PREFETCHT0 (BX)         \
	ADDQ $64, BX            \
	DECQ R13                \
	JNZ  fetch              \
fetched:                    \
	MOVQ (R8), DX           \
	ADDQ $8, R8             \
	LINE                    \
	MOVWLZX (DX), CX        /* lane 0: the count and a flag */ \
	ANDL $0x7fff, CX        \
	CMPL CX, R9             \
	JEQ  whole              \
counted:                    \
	INCL CX                 /* lane 0 is in front of the lanes it counts */ \
	CMPL CX, $32            \
	JGE  first              \
	BZHIL CX, AX, AX        /* without the lanes not in use */ \
first:                      \
	ANDL $-2, AX            /* without lane 0 */ \
	JNZ  note               \
noted:                      \
	SUBL $32, CX            \
	JG   more               \
	DECQ R10                \
	JNZ  bucket             \
	JMP  done               \
more:                       \
	ADDQ $64, DX            \
	LINE                    \
	CMPL CX, $32            \
	JGE  next               \
	BZHIL CX, AX, AX        \
next:                       \
	TESTL AX, AX            \
	JZ   noted              \
note:                       \
	MOVQ DX, BX             \
	SUBQ R14, BX            \
	SHRQ $6, BX             \
	MOVL BX, (DI)           /* number of the line */ \
	MOVL AX, 4(DI)          \
	MOVL R10, 8(DI)         \
	ADDQ $16, DI            \
	JMP  noted              \
farther:                    \
	LESS                    \
	MOVQ s+0(FP), AX        \
shell:                      \
	MOVQ 72(AX), BX         \
	MOVQ 80(AX), R15        \
	MOVLQZX (R15)(BX*4), R15 \
	INCQ 72(AX)             \
	JMP  near               \
whole:                      \
	MOVL R10, (SI)          \
	ADDQ $4, SI             \
	JMP  counted            \
done:                       \
	VZEROUPPER              \
	SUBQ  hits+8(FP), DI    \
	SHRQ  $4, DI            \
	MOVQ  DI, nhits+24(FP)  \
	SUBQ  full+16(FP), SI   \
	SHRQ  $2, SI            \
	MOVQ  SI, nfull+32(FP)  \
	RET

// ALLOWED leaves in CX what is allowed in the first bucket: what the key differs by, the next word may not.
#define ALLOWED() \
	MOVQ 8(AX), BX          \
	MOVLQZX (BX), BX        \
	SHRQ $24, BX            \
	MOVQ 48(AX), CX         \
	SUBQ BX, CX

#define LESS512 VPADDW Z3, Z1, Z1
#define LESS2 VPADDW Y9, Y1, Y1

// BITALG compares 32 lanes in one go.
#define BITALG \
	VPXORD (DX), Z0, Z2     \
	VPOPCNTW Z2, Z2         \
	VPCMPUW $2, Z1, Z2, K1  /* at most what is allowed */ \
	KMOVD K1, AX

// func sweepAVX512(s *sweep, hits *hit, full *uint32) (nhits, nfull int)
TEXT ·sweepAVX512(SB), NOSPLIT, $0-40
	MOVQ s+0(FP), AX
	VPBROADCASTW 40(AX), Z0     // the query's next word in all 32 lanes
	ALLOWED()
	VPBROADCASTW CX, Z1
	VPTERNLOGD $0xff, Z3, Z3, Z3 // -1 in each
	SWEEP(BITALG, LESS512)

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

// HALVES compares 16 lanes and 16 more. Packing takes 128
// bits of either half in turn; the permutation puts them in order.
#define HALVES \
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
	VPBROADCASTW 40(AX), Y0     // the query's next word in 16 lanes
	ALLOWED()
	INCQ CX                     // the comparison is "less than"
	VMOVD CX, X1
	VPBROADCASTW X1, Y1
	MOVL $0x0f0f0f0f, CX
	VMOVD CX, X3
	VPBROADCASTD X3, Y3
	VMOVDQU nibbles<>(SB), Y4
	MOVL $0x01010101, CX
	VMOVD CX, X5
	VPBROADCASTD X5, Y5
	VPCMPEQW Y9, Y9, Y9         // -1 in each
	SWEEP(HALVES, LESS2)

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
