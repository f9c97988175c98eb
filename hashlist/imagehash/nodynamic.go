//go:build !nodynamic

package imagehash

// This file is compiled only when the tag is missing, and then it does not
// compile. Without the tag, the libraries that decode AVIF, HEIC and JPEG XL
// load the system's libavif, libheif and libjxl into every process that links
// them, at start, outside of their WebAssembly sandbox. No check at run time
// comes early enough: they do it in their init functions.
var _ = build_with_go_build_tags_nodynamic
