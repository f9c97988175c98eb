#include "textflag.h"

// Luma of eight pixels at a time, exactly as the Go code beside it has it. What chroma adds to
// R, G and B, in 65,536ths, is
//
//	91881 cr          =            26345 cr + 65536 cr
//	-22554 cb - 46802 cr = -22554 cb + 18734 cr - 65536 cr
//	116130 cb         = -14942 cb          + 131072 cb
//
// with cb and cr less 128: products of 16 bits, which one instruction multiplies and adds in
// pairs, and shifts. Y is 0x10101 times itself: three bytes of a lane.
//
//	DI, SI   row and Y            Y15  128 in every 16 bits
//	R8, R9   Cb and Cr            Y14, Y13, Y12  factors of R, G, B
//	CX       pixels left          Y11, Y10  which chroma goes to eight pixels, and to the next
//	Y0-Y2    what chroma adds     Y9   0      Y8  255 in every 16 bits
//	Y3-Y5    scratch              Y7, Y6  factors of luma

DATA factors<>+0(SB)/4, $0x66e90000 // 0, 26345
DATA factors<>+4(SB)/4, $0x492ea7e6 // -22554, 18734
DATA factors<>+8(SB)/4, $0x0000c5a2 // -14942, 0
DATA factors<>+12(SB)/4, $0x024b012b // 299, 587
DATA factors<>+16(SB)/4, $0x00000072 // 114, 0
DATA factors<>+20(SB)/4, $0x00800080
DATA factors<>+24(SB)/4, $0x00ff00ff
DATA factors<>+28(SB)/4, $1000
GLOBL factors<>(SB), RODATA|NOPTR, $32

DATA thrice<>+0(SB)/8, $0x8004040480000000
DATA thrice<>+8(SB)/8, $0x800c0c0c80080808
DATA thrice<>+16(SB)/8, $0x8004040480000000
DATA thrice<>+24(SB)/8, $0x800c0c0c80080808
GLOBL thrice<>(SB), RODATA|NOPTR, $32

DATA twice<>+0(SB)/8, $0x0000000000000000
DATA twice<>+8(SB)/8, $0x0000000100000001
DATA twice<>+16(SB)/8, $0x0000000200000002
DATA twice<>+24(SB)/8, $0x0000000300000003
DATA twice<>+32(SB)/8, $0x0000000400000004
DATA twice<>+40(SB)/8, $0x0000000500000005
DATA twice<>+48(SB)/8, $0x0000000600000006
DATA twice<>+56(SB)/8, $0x0000000700000007
GLOBL twice<>(SB), RODATA|NOPTR, $64

#define BEGIN() \
	MOVQ row+0(FP), DI                \
	MOVQ y+8(FP), SI                  \
	MOVQ cb+16(FP), R8                \
	MOVQ cr+24(FP), R9                \
	MOVQ n+32(FP), CX                 \
	VPBROADCASTD factors<>+0(SB), Y14  \
	VPBROADCASTD factors<>+4(SB), Y13  \
	VPBROADCASTD factors<>+8(SB), Y12  \
	VPBROADCASTD factors<>+12(SB), Y7  \
	VPBROADCASTD factors<>+16(SB), Y6  \
	VPBROADCASTD factors<>+20(SB), Y15 \
	VPBROADCASTD factors<>+24(SB), Y8  \
	VPXOR Y9, Y9, Y9

// CHROMA leaves what eight samples of chroma add in Y0, Y1 and Y2. Y3 has cb in the lower half of each lane
// and cr in the upper, Y4 65536 cr and at last Y3 131072 cb.
#define CHROMA() \
	VPMOVZXBD (R8), Y3              \
	VPMOVZXBD (R9), Y4              \
	VPSLLD $16, Y4, Y4              \
	VPOR Y4, Y3, Y3                 \
	VPSUBW Y15, Y3, Y3              \
	VPBLENDW $0x55, Y9, Y3, Y4      \
	VPMADDWD Y14, Y3, Y0            \
	VPADDD Y4, Y0, Y0               \
	VPMADDWD Y13, Y3, Y1            \
	VPSUBD Y4, Y1, Y1               \
	VPMADDWD Y12, Y3, Y2            \
	VPSLLD $17, Y3, Y3              \
	VPADDD Y3, Y2, Y2

// LUMA takes R in Y3 and G and B before they are shifted, Y included, in Y5 and Y4, and stores eight
// pixels. R goes to the lower half of each lane, G is in the upper already.
#define LUMA(at) \
	VPSRLD $16, Y3, Y3              \
	VPBLENDW $0xaa, Y5, Y3, Y3      \
	VPSRLD $16, Y4, Y4              \
	VPMAXSW Y9, Y3, Y3              \
	VPMINSW Y8, Y3, Y3              \
	VPMADDWD Y7, Y3, Y3             \
	VPMAXSW Y9, Y4, Y4              \
	VPMINSW Y8, Y4, Y4              \
	VPMADDWD Y6, Y4, Y4             \
	VPADDD Y4, Y3, Y3               \
	VMOVDQU Y3, at(DI)

// func lumaSingles(row *uint32, y, cb, cr *uint8, n int)
TEXT ·lumaSingles(SB), NOSPLIT, $0-40
	BEGIN()
	TESTQ CX, CX
	JZ   singlesdone

singles:
	CHROMA()
	VPMOVZXBD (SI), Y4
	VPSHUFB thrice<>(SB), Y4, Y4
	VPADDD Y4, Y0, Y3
	VPADDD Y4, Y1, Y5
	VPADDD Y4, Y2, Y4
	LUMA(0)
	ADDQ $8, R8
	ADDQ $8, R9
	ADDQ $8, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  singles

singlesdone:
	VZEROUPPER
	RET

// func lumaPairs(row *uint32, y, cb, cr *uint8, n int)
TEXT ·lumaPairs(SB), NOSPLIT, $0-40
	BEGIN()
	VMOVDQU twice<>+0(SB), Y11
	VMOVDQU twice<>+32(SB), Y10
	TESTQ CX, CX
	JZ   pairsdone

pairs:
	CHROMA()
	VPMOVZXBD (SI), Y4
	VPSHUFB thrice<>(SB), Y4, Y4
	VPERMD Y0, Y11, Y3
	VPADDD Y4, Y3, Y3
	VPERMD Y1, Y11, Y5
	VPADDD Y4, Y5, Y5
	VPERMD Y2, Y11, Y12
	VPADDD Y12, Y4, Y4
	LUMA(0)
	VPMOVZXBD 8(SI), Y4
	VPSHUFB thrice<>(SB), Y4, Y4
	VPERMD Y0, Y10, Y3
	VPADDD Y4, Y3, Y3
	VPERMD Y1, Y10, Y5
	VPADDD Y4, Y5, Y5
	VPERMD Y2, Y10, Y12
	VPADDD Y12, Y4, Y4
	LUMA(32)
	VPBROADCASTD factors<>+8(SB), Y12
	ADDQ $8, R8
	ADDQ $8, R9
	ADDQ $16, SI
	ADDQ $64, DI
	SUBQ $16, CX
	JNZ  pairs

pairsdone:
	VZEROUPPER
	RET

// func lumaGrays(row *uint32, y *uint8, n int)
TEXT ·lumaGrays(SB), NOSPLIT, $0-24
	MOVQ row+0(FP), DI
	MOVQ y+8(FP), SI
	MOVQ n+16(FP), CX
	VPBROADCASTD factors<>+28(SB), Y15
	TESTQ CX, CX
	JZ   graysdone

grays:
	VPMOVZXBD (SI), Y0
	VPMULLD Y15, Y0, Y0
	VMOVDQU Y0, (DI)
	ADDQ $8, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  grays

graysdone:
	VZEROUPPER
	RET

// func weighVector(row, weights *uint32, n int) uint64
TEXT ·weighVector(SB), NOSPLIT, $0-32
	MOVQ row+0(FP), SI
	MOVQ weights+8(FP), DI
	MOVQ n+16(FP), CX
	VPXOR Y0, Y0, Y0
	TESTQ CX, CX
	JZ   weighed

weighing:
	VMOVDQU (SI), Y1
	VPMULLD (DI), Y1, Y1
	VPADDD Y1, Y0, Y0
	ADDQ $32, SI
	ADDQ $32, DI
	SUBQ $8, CX
	JNZ  weighing

weighed:
	VEXTRACTI128 $1, Y0, X1
	VPMOVZXDQ X0, Y0            // lanes of 64 bits from here on
	VPMOVZXDQ X1, Y1
	VPADDQ Y1, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPADDQ X1, X0, X0
	MOVQ X0, ret+24(FP)
	VZEROUPPER
	RET

// func weighBytes(in *uint8, weights *uint16, n int) uint32
TEXT ·weighBytes(SB), NOSPLIT, $0-28
	MOVQ in+0(FP), SI
	MOVQ weights+8(FP), DI
	MOVQ n+16(FP), CX
	VPXOR Y0, Y0, Y0
	TESTQ CX, CX
	JZ   bytesdone

bytes:
	VPMOVZXBW (SI), Y1
	VPMADDWD (DI), Y1, Y1
	VPADDD Y1, Y0, Y0
	ADDQ $16, SI
	ADDQ $32, DI
	SUBQ $16, CX
	JNZ  bytes

bytesdone:
	VEXTRACTI128 $1, Y0, X1
	VPADDD X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPADDD X1, X0, X0
	VPSRLDQ $4, X0, X1
	VPADDD X1, X0, X0
	MOVL X0, ret+24(FP)
	VZEROUPPER
	RET
