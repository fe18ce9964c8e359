"""Writes the images of test/data/media, and expected.json: what Pillow 11.3 decodes them to."""
import base64, hashlib, io, json, struct, sys, zlib
import numpy as np
from PIL import Image, ImageOps
out = sys.argv[1]
rng = np.random.default_rng(7)
H, W = 11, 17
y, x = np.mgrid[0:H, 0:W]
rgb = np.clip(np.stack([x * 15, y * 23, (x * 7 + y * 13) % 256], -1) + rng.integers(-25, 25, (H, W, 3)), 0, 255).astype(np.uint8)
alpha = ((x * 31 + y * 17) % 256).astype(np.uint8)
im = Image.fromarray(rgb)
rgba = Image.fromarray(np.dstack([rgb, alpha]))
files = {}
def save(name, image, **k):
    b = io.BytesIO(); image.save(b, **k); files[name] = b.getvalue()
save('rgb.png', im, format='PNG'); save('rgba.png', rgba, format='PNG')
save('grey.png', im.convert('L'), format='PNG'); save('grey-alpha.png', rgba.convert('LA'), format='PNG')
save('bilevel.png', im.convert('1'), format='PNG')
pal = im.quantize(13); save('palette.png', pal, format='PNG')
save('palette-alpha.png', pal, format='PNG', transparency=bytes([0, 128, 255, 7]))
save('rgb-key.png', im, format='PNG', transparency=tuple(int(v) for v in rgb[0, 0]))
def chunk(t, d): return struct.pack('>I', len(d)) + t + d + struct.pack('>I', zlib.crc32(t + d))
def png(w, h, depth, colour, interlace, raw, extra=b''):
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, depth, colour, 0, 0, interlace)) + extra + chunk(b'IDAT', zlib.compress(raw)) + chunk(b'IEND', b'')
deep = (rgb.astype(np.uint32) * 257 ^ 0x35).astype('>u2')
files['rgb16.png'] = png(W, H, 16, 2, 0, b''.join(b'\0' + deep[r].tobytes() for r in range(H)))
deepa = np.dstack([deep.astype(np.uint32), alpha.astype(np.uint32) * 257]).astype('>u2')
files['rgba16.png'] = png(W, H, 16, 6, 0, b''.join(b'\0' + deepa[r].tobytes() for r in range(H)))
files['grey16.png'] = png(W, H, 16, 0, 0, b''.join(b'\0' + deep[r, :, 0].tobytes() for r in range(H)))
passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
raw = b''
for x0, y0, dx, dy in passes:
    part = rgb[y0::dy, x0::dx]
    if part.size: raw += b''.join(b'\0' + row.tobytes() for row in part)
files['interlaced.png'] = png(W, H, 8, 2, 1, raw)
save('baseline.jpg', im, format='JPEG', quality=85, subsampling=2); save('progressive.jpg', im, format='JPEG', quality=85, progressive=True)
save('444.jpg', im, format='JPEG', quality=90, subsampling=0); save('422.jpg', im, format='JPEG', quality=90, subsampling=1)
save('grey.jpg', im.convert('L'), format='JPEG'); save('rgb-adobe.jpg', im, format='JPEG', quality=90, keep_rgb=True)
save('cmyk.jpg', im.convert('CMYK'), format='JPEG', quality=90)
# YCCK: an RGB picture as Y Cb Cr, K = 255 - c; Adobe's marker with transform 2
cmyk = files['cmyk.jpg']; at = cmyk.index(b'Adobe'); files['ycck.jpg'] = cmyk[:at + 11] + b'\x02' + cmyk[at + 12:]
save('restart.jpg', im, format='JPEG', quality=85, restart_marker_rows=1)
for o in range(1, 9):
    exif = Image.Exif(); exif[0x0112] = o
    save(f'orientation-{o}.jpg', im, format='JPEG', quality=95, subsampling=0, exif=exif)
exif = Image.Exif(); exif[0x0112] = 6
save('orientation-6.png', im, format='PNG', exif=exif); save('orientation-6.webp', im, format='WEBP', lossless=True, exif=exif)
save('lossy.webp', im, format='WEBP', quality=80); save('lossless.webp', im, format='WEBP', lossless=True)
save('lossy-alpha.webp', rgba, format='WEBP', quality=80); save('lossless-alpha.webp', rgba, format='WEBP', lossless=True, exact=True)
save('plain.gif', pal, format='GIF'); save('interlaced.gif', pal, format='GIF', interlace=1)
save('transparent.gif', pal, format='GIF', transparency=3)
save('animated.gif', pal, format='GIF', save_all=True, append_images=[pal.rotate(180), pal.rotate(90)], duration=50, loop=0)
# hand-made: a frame inside a larger screen, with a palette of its own
def lzw(idx, bits):
    clear = 1 << bits; acc = n = 0; bs = bytearray()
    for i, v in enumerate(idx):
        for code in ([clear] if i % 2 == 0 else []) + [v]:
            acc |= code << n; n += bits + 1
            while n >= 8: bs.append(acc & 255); acc >>= 8; n -= 8
    acc |= (clear + 1) << n; n += bits + 1
    while n > 0: bs.append(acc & 255); acc >>= 8; n -= 8
    return bytes([bits, len(bs)]) + bytes(bs) + b'\0'
idx = [(i * 5) % 4 for i in range(12)]
table = bytes([10, 20, 30, 200, 100, 50, 1, 2, 3, 250, 251, 252]); own = bytes([90, 80, 70, 60, 50, 40, 30, 20, 10, 5, 6, 7])
head = b'GIF89a' + struct.pack('<HHBBB', 9, 7, 0x81, 2, 0) + table
gce = lambda flag, i: b'\x21\xf9\x04' + bytes([flag, 0, 0, i]) + b'\0'
files['offset.gif'] = head + b'\x2c' + struct.pack('<HHHHB', 3, 2, 4, 3, 0x81) + own + lzw(idx, 2) + b'\x3b'
files['offset-transparent.gif'] = head + gce(1, 1) + b'\x2c' + struct.pack('<HHHHB', 3, 2, 4, 3, 0) + lzw(idx, 2) + b'\x3b'
files['wider-than-screen.gif'] = head + b'\x2c' + struct.pack('<HHHHB', 8, 6, 4, 3, 0) + lzw(idx, 2) + b'\x3b'
big = np.clip(np.stack(np.broadcast_arrays(np.arange(200)[None, :] * 1.2, np.arange(150)[:, None] * 1.6, 90), -1) + rng.normal(0, 30, (150, 200, 3)), 0, 255).astype(np.uint8)
b = Image.fromarray(big).quantize(200); save('many-codes.gif', b, format='GIF')
resized = {}
for name, (w, h), mode in [('rgb.png', (28, 42), 'pad'), ('rgb.png', (8, 3), 'pad'), ('rgb.png', (56, 14), 'pad'), ('rgb.png', (34, 22), 'pad'), ('rgb.png', (5, 40), 'stretch'), ('many-codes.gif', (84, 70), 'pad'), ('many-codes.gif', (42, 98), 'pad'), ('many-codes.gif', (210, 140), 'stretch')]:
    p = Image.open(io.BytesIO(files[name])).convert('RGB')
    r = ImageOps.pad(p, (w, h), color=(127, 127, 127)) if mode == 'pad' else p.resize((w, h))
    resized[f'{name} {w}x{h} {mode}'] = hashlib.sha256(r.tobytes()).hexdigest()
expected = {}
for name, data in files.items():
    open(f'{out}/{name}', 'wb').write(data)
    p = Image.open(io.BytesIO(data))
    p = ImageOps.exif_transpose(p).convert('RGB')
    px = p.tobytes()
    expected[name] = {'width': p.width, 'height': p.height, **({'rgb': base64.b64encode(px).decode()} if len(px) < 1000 else {'sha256': hashlib.sha256(px).hexdigest()})}
json.dump({'decoded': expected, 'fitted': resized}, open(f'{out}/expected.json', 'w'), indent=1)
print(len(files), sum(map(len, files.values())))
