"""The start page's words: key -> (English, Chinese)."""

from __future__ import annotations

import re

WORDS = {
    "lead": (
        "One project, three doors. Whatever you start here, the others know it.",
        "一个项目，三个入口。无论从哪里开始，其他入口都会知道。",
    ),
    "doors": ("Doors", "入口"),
    "open": ("Open", "打开"),
    "state": ("State of the project", "项目状态"),
    "reports": ("Reports", "报告"),
    "no_reports": ("None yet: run the pipeline first.", "尚无报告：请先运行流水线。"),
    "findings": ("What the doctor says", "检查结果"),
    "looking": ("Looking …", "检查中……"),
    "all_good": ("Nothing is wrong.", "一切正常。"),
    "language": ("中文", "English"),
    "stop": ("Ctrl-C in the terminal stops everything.", "在终端按 Ctrl-C 停止全部服务。"),
    "prefect": ("Prefect", "Prefect"),
    "prefect_about": (
        "Start the pipeline, a single stage or a drift check from a form; watch, cancel, schedule.",
        "通过表单启动流水线、单个阶段或漂移检查；查看、取消、定时。",
    ),
    "mlflow": ("MLflow", "MLflow"),
    "mlflow_about": (
        "Every registered model with its metrics; move the alias champion to put one in charge.",
        "所有已注册模型及其指标；移动别名 champion 即可切换模型。",
    ),
    "evidently": ("Evidently", "Evidently"),
    "evidently_about": ("The history of the drift checks, modality by modality.", "漂移检查的历史记录，按模态查看。"),
    "evaluation": ("Evaluation report", "评估报告"),
    "evaluation_about": (
        "How good the model is, for whom, and how sure that is.",
        "模型效果如何，对谁有效，把握多大。",
    ),
    "gate": ("What the gate found", "数据闸门结果"),
    "gate_about": ("Rows accepted and set aside, with the reasons.", "接受与隔离的数据行及其原因。"),
    "comparison": ("What changed", "变更对比"),
    "comparison_about": ("The newest version beside the champion of its time.", "最新版本与当时模型的对比。"),
    "data_docs": ("Data Docs", "数据文档 (Data Docs)"),
    "data_docs_about": ("Great Expectations on the newest partitions.", "Great Expectations 对最新分区的校验。"),
    "drift": ("Drift report", "漂移报告"),
    "drift_about": ("What changed between the reference and a batch.", "参考数据与某批次之间的变化。"),
    "champion": ("Champion", "当前模型"),
    "challenger": ("Challenger", "候选模型"),
    "model": ("Model", "模型"),
    "bundle": ("Bundle", "模型包"),
    "pipeline": ("Last pipeline run", "最近一次运行"),
    "stage": ("Last stage", "最近完成的阶段"),
    "monitor": ("Last drift check", "最近一次漂移检查"),
}

_CHINESE = tuple(
    (re.compile(pattern), told)
    for pattern, told in (
        ("versions", "版本"),
        ("privacy", "隐私"),
        ("lock", "锁"),
        ("params", "参数"),
        ("weights", "权重"),
        ("source", "数据源"),
        ("media", "媒体"),
        ("isolated", "隔离运行"),
        (r"Python (\S+) on (\S+?)( \(expected 3\.11 on x86_64\))?; (.*)", r"Python \1，\2\3；\4"),
        (r"(\S+) is not installed: run (`make demo`) or install (\S+)", r"\1 未安装：请运行 \2 或安装 \3"),
        (r"(\S+) (\S+) is too new, expected below (\S+): install (\S+)", r"\1 \2 过新，应低于 \3：请安装 \4"),
        (r"(.+) has mode (\d+), expected 700: (chmod 700 .+)", r"\1 的权限为 \2，应为 700：\3"),
        ("DVC's site cache is private", "DVC 的站点缓存是私有的"),
        (
            r"DVC's site cache is (.+), outside (.+): run .*",
            r"DVC 的站点缓存 \1 不在 \2 内：运行任一 fusionrec 命令即可设置",
        ),
        ("no run is active", "没有正在进行的运行"),
        (r"(.+) \(pid (\d+), since (\S+)\) holds the project", r"\1（进程 \2，自 \3 起）正在使用本项目"),
        (r"params\.yaml is valid", "params.yaml 有效"),
        (r"source\.root (.+) is not a folder(?:: run (.+))?", r"source.root \1 不是文件夹 \2"),
        (r"set aside by the gate: nothing; see (\S+)", r"数据闸门没有隔离媒体文件；见 \1"),
        (r"set aside by the gate: (.+); see (\S+)", r"数据闸门隔离的媒体文件：\1；见 \2"),
        (r"not encoded: (\S+): (.+); see (\S+)", r"未编码：\1：\2；见 \3"),
        (r"(\S+) is damaged: run (.+)", r"\1 已损坏：请运行 \2"),
        (r"(\d+) workspace\(s\) of killed runs: (.+)", r"被终止的运行留下 \1 个工作区：\2"),
    )
)
"""The doctor's topics and sentences; what is none of them stays as it is."""


def chinese(text: str) -> str:
    """A text of the doctor in Chinese; one that is not known here as it is."""
    for pattern, told in _CHINESE:
        if found := pattern.fullmatch(text):
            return found.expand(told).strip()
    return text
