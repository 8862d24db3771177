#!/usr/bin/env python3
"""Make a sparse-file simulation of a giant Hugging Face checkpoint (stdlib only).

Real: file names, safetensors headers, model.safetensors.index.json, config.json.
Simulated: tensor data is a hole (reads as zero bytes; almost no disk used).

  make_giant.py OUT --preset kimi-k2        # 1.03 T params, 61 shards, 139,644 tensors, fp8 + scale_inv
  make_giant.py OUT --preset deepseek-v3    # 0.68 T params, 163 shards
  make_giant.py OUT --preset llama-405b     # 0.41 T params, 191 shards, bf16
  options: --layers N (cut down), --fill K (write real random bytes in K randomly chosen tensors),
           --sparse-check (fail if the result uses more than 1 % of its apparent size)
"""

import argparse
import json
import os
import random
import struct
import sys

DT = {"F8_E4M3": 1, "BF16": 2, "F32": 4}


def lin(out, name, o, i, fp8):
    if fp8:
        out.append((name + ".weight", "F8_E4M3", (o, i)))
        out.append((name + ".weight_scale_inv", "F32", (-(-o // 128), -(-i // 128))))
    else:
        out.append((name + ".weight", "BF16", (o, i)))


def mla_layer(L, c, dense, fp8, rotary, mtp=False):
    p, o, h = f"model.layers.{L}", [], c["hidden_size"]
    heads, nope, rope, v = c["num_attention_heads"], 128, 64, 128
    if mtp:
        o += [
            (f"{p}.embed_tokens.weight", "BF16", (c["vocab_size"], h)),
            (f"{p}.enorm.weight", "BF16", (h,)),
            (f"{p}.hnorm.weight", "BF16", (h,)),
            (f"{p}.eh_proj.weight", "BF16", (h, 2 * h)),
            (f"{p}.shared_head.norm.weight", "BF16", (h,)),
            (f"{p}.shared_head.head.weight", "BF16", (c["vocab_size"], h)),
        ]
    lin(o, f"{p}.self_attn.q_a_proj", 1536, h, fp8)
    o.append((f"{p}.self_attn.q_a_layernorm.weight", "BF16", (1536,)))
    lin(o, f"{p}.self_attn.q_b_proj", heads * (nope + rope), 1536, fp8)
    lin(o, f"{p}.self_attn.kv_a_proj_with_mqa", 512 + rope, h, fp8)
    o.append((f"{p}.self_attn.kv_a_layernorm.weight", "BF16", (512,)))
    lin(o, f"{p}.self_attn.kv_b_proj", heads * (nope + v), 512, fp8)
    lin(o, f"{p}.self_attn.o_proj", h, heads * v, fp8)
    if rotary:
        o.append((f"{p}.self_attn.rotary_emb.inv_freq", "BF16", (56,)))
    if dense:
        lin(o, f"{p}.mlp.gate_proj", 18432, h, fp8)
        lin(o, f"{p}.mlp.up_proj", 18432, h, fp8)
        lin(o, f"{p}.mlp.down_proj", h, 18432, fp8)
    else:
        E = c["n_routed_experts"]
        o += [(f"{p}.mlp.gate.weight", "BF16", (E, h)), (f"{p}.mlp.gate.e_score_correction_bias", "F32", (E,))]
        for q in ["shared_experts"] + [f"experts.{e}" for e in range(E)]:
            lin(o, f"{p}.mlp.{q}.gate_proj", 2048, h, fp8)
            lin(o, f"{p}.mlp.{q}.up_proj", 2048, h, fp8)
            lin(o, f"{p}.mlp.{q}.down_proj", h, 2048, fp8)
    o += [(f"{p}.input_layernorm.weight", "BF16", (h,)), (f"{p}.post_attention_layernorm.weight", "BF16", (h,))]
    return o


def kimi(a):
    c = {
        "model_type": "kimi_k2",
        "architectures": ["DeepseekV3ForCausalLM"],
        "hidden_size": 7168,
        "num_attention_heads": 64,
        "vocab_size": 163840,
        "n_routed_experts": 384,
        "num_hidden_layers": a.layers or 61,
        "first_k_dense_replace": 1,
        "moe_intermediate_size": 2048,
        "intermediate_size": 18432,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "num_nextn_predict_layers": 0,
        "quantization_config": {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "weight_block_size": [128, 128],
            "activation_scheme": "dynamic",
        },
    }
    n = c["num_hidden_layers"]
    groups = [mla_layer(L, c, L < 1, True, True) for L in range(n)]  # one shard a layer
    groups[0].insert(0, ("model.embed_tokens.weight", "BF16", (c["vocab_size"], 7168)))
    groups[-1] += [("model.norm.weight", "BF16", (7168,)), ("lm_head.weight", "BF16", (c["vocab_size"], 7168))]
    return c, groups, lambda i, n: f"model-{i}-of-{n}.safetensors"  # Kimi: no zero padding


def deepseek(a):
    c = {
        "model_type": "deepseek_v3",
        "architectures": ["DeepseekV3ForCausalLM"],
        "hidden_size": 7168,
        "num_attention_heads": 128,
        "vocab_size": 129280,
        "n_routed_experts": 256,
        "num_hidden_layers": a.layers or 61,
        "first_k_dense_replace": 3,
        "moe_intermediate_size": 2048,
        "intermediate_size": 18432,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "num_nextn_predict_layers": 1,
        "quantization_config": {
            "quant_method": "fp8",
            "fmt": "e4m3",
            "weight_block_size": [128, 128],
            "activation_scheme": "dynamic",
        },
    }
    n = c["num_hidden_layers"]
    t = [("model.embed_tokens.weight", "BF16", (c["vocab_size"], 7168))]
    for L in range(n):
        t += mla_layer(L, c, L < 3, True, False)
    t += [("model.norm.weight", "BF16", (7168,)), ("lm_head.weight", "BF16", (c["vocab_size"], 7168))]
    t += mla_layer(n, c, False, True, False, mtp=True)
    return c, t, lambda i, n: f"model-{i:05d}-of-{n:06d}.safetensors"  # DeepSeek: 5 digits of 6 digits


def llama(a):
    c = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 16384,
        "num_attention_heads": 128,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "num_hidden_layers": a.layers or 126,
        "intermediate_size": 53248,
        "torch_dtype": "bfloat16",
    }
    h, kv, f = 16384, 1024, 53248
    t = [("model.embed_tokens.weight", "BF16", (c["vocab_size"], h))]
    for L in range(c["num_hidden_layers"]):
        p = f"model.layers.{L}"
        for nme, o, i in (
            ("self_attn.q_proj", h, h),
            ("self_attn.k_proj", kv, h),
            ("self_attn.v_proj", kv, h),
            ("self_attn.o_proj", h, h),
            ("mlp.gate_proj", f, h),
            ("mlp.up_proj", f, h),
            ("mlp.down_proj", h, f),
        ):
            lin(t, f"{p}.{nme}", o, i, False)
        t += [(f"{p}.input_layernorm.weight", "BF16", (h,)), (f"{p}.post_attention_layernorm.weight", "BF16", (h,))]
    t += [("model.norm.weight", "BF16", (h,)), ("lm_head.weight", "BF16", (c["vocab_size"], h))]
    return c, t, lambda i, n: f"model-{i:05d}-of-{n:05d}.safetensors"


PRE = {"kimi-k2": (kimi, None), "deepseek-v3": (deepseek, 163), "llama-405b": (llama, 191)}


def nbytes(dt, s):
    n = DT[dt]
    for x in s:
        n *= x
    return n


def pack(tensors, nsh):
    """greedy: fill shards up to total/nsh, exactly nsh of them"""
    total = sum(nbytes(d, s) for _, d, s in tensors)
    out, cur, acc, done = [], [], 0, 0
    for _i, (n, d, s) in enumerate(tensors):
        b = nbytes(d, s)
        if cur and acc + b / 2 > (total - done) / (nsh - len(out)) and len(out) < nsh - 1:
            out.append(cur)
            done += acc
            cur, acc = [], 0
        cur.append((n, d, s))
        acc += b
    out.append(cur)
    return out


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--preset", choices=sorted(PRE), default="kimi-k2")
    ap.add_argument("--layers", type=int, default=0)
    ap.add_argument("--shards", type=int, default=0)
    ap.add_argument("--fill", type=int, default=0)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--sparse-check", action="store_true")
    a = ap.parse_args()
    fn, nsh = PRE[a.preset]
    cfg, groups, namer = fn(a)
    if nsh:
        groups = pack(groups, a.shards or nsh)
    os.makedirs(a.out, exist_ok=True)
    rng = random.Random(a.seed)
    wm, total, params, hdrs, where = {}, 0, 0, [], []
    for i, g in enumerate(groups):
        f = namer(i + 1, len(groups))
        hdr, off = {}, 0
        for n, d, s in g:
            b = nbytes(d, s)
            hdr[n] = {"dtype": d, "shape": list(s), "data_offsets": [off, off + b]}
            wm[n] = f
            off += b
            params += b // DT[d]
        j = json.dumps(hdr, separators=(",", ":")).encode()
        j += b" " * (-len(j) % 8)
        with open(os.path.join(a.out, f), "wb") as fh:
            fh.write(struct.pack("<Q", len(j)))
            fh.write(j)
            fh.truncate(8 + len(j) + off)  # truncate = hole
        where += [
            (f, 8 + len(j) + h["data_offsets"][0], h["data_offsets"][1] - h["data_offsets"][0]) for h in hdr.values()
        ]
        total += off
        hdrs.append(len(j))
    for f, o, n in rng.sample(where, min(a.fill, len(where))):
        with open(os.path.join(a.out, f), "r+b") as fh:
            fh.seek(o)
            fh.write(rng.randbytes(min(n, 1 << 16)))
    with open(os.path.join(a.out, "model.safetensors.index.json"), "w") as fh:
        json.dump({"metadata": {"total_size": total}, "weight_map": dict(sorted(wm.items()))}, fh, indent=2)
    with open(os.path.join(a.out, "config.json"), "w") as fh:
        json.dump(cfg, fh, indent=2)
    real = sum(os.stat(os.path.join(a.out, x)).st_blocks * 512 for x in os.listdir(a.out))
    idx = os.path.getsize(os.path.join(a.out, "model.safetensors.index.json"))
    print(
        json.dumps(
            {
                "preset": a.preset,
                "tensors": len(wm),
                "shards": len(groups),
                "params": params,
                "data_bytes": total,
                "data_GiB": round(total / 2**30, 2),
                "index_bytes": idx,
                "header_bytes_total": sum(hdrs),
                "header_min": min(hdrs),
                "header_max": max(hdrs),
                "headers_over_100kB": sum(h > 99993 for h in hdrs),
                "disk_bytes": real,
            }
        )
    )
    if a.sparse_check and real > total // 100:
        sys.exit("not sparse: file system without holes")


main()
