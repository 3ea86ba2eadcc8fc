"""What cannot be computed about the networks: what papers say, where we differ, and why.

A family is a section of docs/networks.md. Everything else on that page is counted and composed from the networks
themselves by docs/networks_table.py; tests/test_docs_networks.py compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Published:
    """A number of parameters as somebody else gives it.

    Attributes:
        figure: as printed there, such as ``134 M``.
        where: table or section, or whose code.
        beside: what was counted otherwise, and how many more (fewer, if negative) than here; with these the counts
            agree in all digits of the figure.
        why: where they don't, the reason.
    """

    figure: str
    where: str
    beside: tuple[tuple[str, int], ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Row:
    """A network, as :func:`medseg.build_network` takes it.

    Attributes:
        spec: its name and the arguments that are not the defaults.
        published: ``None`` where nobody gives a number.
    """

    spec: dict[str, Any]
    published: Published | None = None


@dataclass(frozen=True)
class Family:
    """A section: a paper, its networks, and how they differ from it."""

    title: str
    source: str
    rows: tuple[Row, ...]
    differences: tuple[str, ...]


def _row(published: Published | None = None, /, **spec: Any) -> Row:
    return Row(spec, published)


UNET = Family(
    "U-Net",
    "Ronneberger et al., MICCAI 2015, arXiv:1505.04597, section 2 and figure 1; 3D: Çiçek et al., MICCAI 2016, "
    "arXiv:1606.06650, section 2 and figure 2.",
    (
        _row(name="unet"),
        _row(name="unet", padding="same"),
        _row(name="unet", dims=3, depth=3, width=32),
        _row(
            Published(
                "19 069 955",
                "section 2",
                beside=(("batch norm's weights and biases, which the paper leaves out", -4672),),
            ),
            name="unet3d",
        ),
        _row(name="unet3d", padding="same"),
    ),
    (
        "The 2015 paper counts layers, not parameters: 23 convolutional ones, as here. 572 → 388 and, in 3D, "
        "132x132x116 → 44x44x28 are the papers' sizes.",
        "Dropout, «at the end of the contracting path», is after its last level and after the bottom, as in the "
        "authors' released network.",
        "`padding: same`, `norm` and `up: interpolated` are not the paper's: they are what most U-Nets of today do, "
        "kept to compare with. Instance and group norm are not exact.",
        "The papers train with SGD or its Caffe settings; here the optimiser is the config's "
        "([unet_paper.yaml](../configs/unet_paper.yaml)).",
    ),
)

FCN = Family(
    "FCN",
    "Long, Shelhamer and Darrell, CVPR 2015, arXiv:1411.4038: sections 3.3 (up-sampling), 4.1 (from classifier to "
    "dense FCN), 4.2 (skips, staged training), 4.3 (fixed last layer); the authors' release for crops, padding and "
    "scaled skips. `fcn_resnet` has no paper: torchvision's.",
    (
        _row(Published("134 M", "table 1"), name="fcn32s"),
        _row(name="fcn16s"),
        _row(name="fcn8s"),
        _row(Published("134 M", "table 1"), name="fcn32s", padding="same"),
        _row(name="fcn8s", padding="same"),
        _row(name="fcn8s", dims=3, padding="same", fc_size=3, width=8),
        _row(Published("35 322 218", "torchvision"), name="fcn_resnet", backbone="resnet50", auxiliary=True),
        _row(Published("54 314 346", "torchvision"), name="fcn_resnet", auxiliary=True),
    ),
    (
        "The receptive field of fc7's scores is the paper's 404 (table 1), at stride 32.",
        "`padding: published` puts 100 zeros around the window, as the release does; `padding: same` pads fc6 by 3 "
        "instead, so that nothing is computed around the window. The footprint's reach is the same.",
        "The last up-sampling is bilinear and fixed, as in the paper, but each class by itself: the release multiplies "
        "with weights that are zero between classes. It is no parameter here.",
        "VGG16's weights start as in He et al. 2015 where none are loaded; the paper always loads ImageNet's.",
        "In 3D fc6 may see 3^3 instead of 7^3 voxels (`fc_size`), since 7^3 x 512 x 4096 weights would be 719 million.",
        "`at_once` scales pool4 by 0.01 and pool3 by 0.0001, as the release's `voc-fcn8s-atonce`.",
    ),
)

DECONVNET = Family(
    "DeconvNet",
    "Noh, Hong and Han, ICCV 2015, arXiv:1505.04366: section 3.2 (architecture), 4.1 (batch norm), figure 2, table 2.",
    (
        _row(name="deconvnet"),
        _row(name="deconvnet", dims=3, fc_size=3, width=8),
    ),
    (
        "The paper gives no count; the layers of its table 2, with the biases and norms of the released network, add "
        "up to the one here: four fifths are in fc6 and its mirror.",
        "Any window of the least size or more is taken: poolings round up as in Caffe, and unpoolings restore the size "
        "before them. The paper's is 224, where fc7 is one voxel.",
        "Section 5.1 gives up dropout for batch norm; here whole channels are dropped after fc6 and fc7 as VGG16 does. "
        "`dropout: 0` is the paper's own.",
        "Weights start as in He et al. 2015 instead of a Gaussian of deviation 0.01: batch norm makes the two equal, "
        "but for the score's.",
        "The two stages of training and the proposals' ensemble (sections 4.2, 4.4) are not the network's, and are not "
        "here.",
    ),
)

SEGNET = Family(
    "SegNet",
    "Badrinarayanan, Kendall and Cipolla, PAMI 2017, arXiv:1511.00561: section 3 and figure 2, SegNet-Basic in section "
    "3.1; the authors' released networks. `segnet_small` has no paper: it is the network that courses call SegNet.",
    (
        _row(name="segnet"),
        _row(name="segnet", unpool="bilinear"),
        _row(
            Published(
                "1.425 M", "table 1", why="the table's counts are multiples of 0.025 M, and this is the nearest one"
            ),
            name="segnet_basic",
            out_channels=11,
        ),
        _row(name="segnet_basic", unpool="bilinear"),
        _row(name="segnet_small"),
        _row(name="segnet", dims=3, width=8),
    ),
    (
        "Section 3 gives the encoder alone, 14.7 M, as here (14 723 136 with norms); of the whole it gives none.",
        "SegNet-Basic's deepest voxel sees the 106 voxels that section 3.1 says.",
        "Poolings round up and unpoolings restore the size before them, so that any window goes in; the released "
        "network names the sizes of a 360x480 image.",
        "`unpool: bilinear` keeps the decoder's convolutions, to tell what the indices are worth; the paper's "
        "Bilinear-Interpolation has none.",
        "SegNet-Basic has no biases in its convolutions, as the paper says; the released one has. Its local contrast "
        "normalisation of the image (in the release: local response normalisation) is left to preprocessing.",
        "`segnet_small`: five convolutions of width 16 to 256, bilinear, one logit. The code that goes around rounds "
        "poolings down; here they round up, so that odd windows need no padding.",
    ),
)

DEEPLAB = Family(
    "DeepLab v1 and v2",
    "v1: Chen et al., ICLR 2015, arXiv:1412.7062, sections 3.1 and 3.2, table 2 (LargeFOV). v2: Chen et al., PAMI "
    "2018, arXiv:1606.00915, sections 3.1, 3.2 and 4.1.2, figure 7 (ASPP-L). The authors' releases for poolings and "
    "strides.",
    (
        _row(Published("20.5 M", "table 2"), name="deeplab_v1"),
        _row(name="deeplab_v1", align_corners=False),
        _row(name="deeplab_v2"),
        _row(name="deeplab_v2", backbone="vgg16"),
        _row(name="deeplab_v2", scales=(1, 0.75, 0.5)),
        _row(name="deeplab_v1", dims=3, width=8),
    ),
    (
        "Table 2's receptive field, 224, is what fc6 alone sees in VGG16 (7 voxels of stride 32, which 3 at rate 12 "
        "come near); composed from all layers it is larger.",
        "Logits are resized to the window's own size, where the paper takes 8 times: any size goes in.",
        "With `align_corners` (the papers') poolings round up, as in Caffe; without, down, as tiling needs it.",
        "Dropout takes whole channels.",
        "v2 on a ResNet: strides are in the 3x3 convolutions (see ResNet below), so that the first unit after a stride "
        "that was taken away is dilated half as much as the release's.",
        "`scales`: max fusion over resized windows (section 3.2); a window that is resized meets other voxels in every "
        "tile, so it is not exact. The default is one scale.",
        "v2 gives no counts. The dense CRF is post-processing, not the network.",
    ),
)

DEEPLAB_V3 = Family(
    "DeepLab v3 and v3+",
    "v3: Chen et al. 2017, arXiv:1706.05587, sections 3.1 to 3.3, figures 3 and 5. v3+: Chen et al., ECCV 2018, "
    "arXiv:1802.02611, section 3, figures 2 and 4. Xception: the same; MobileNetV2: Sandler et al., CVPR 2018, "
    "arXiv:1801.04381, table 2, section 6.3.",
    (
        _row(
            Published(
                "58.16 M",
                "Sandler et al., table 7",
                beside=(("the first convolution of the authors' ResNet is three of 3x3 (64, 64, 128)", 123_776),),
            ),
            name="deeplab_v3",
        ),
        _row(name="deeplab_v3", output_stride=8),
        _row(name="deeplab_v3", image_pooling=False),
        _row(
            Published("42 004 074", "torchvision"),
            name="deeplab_v3",
            backbone="resnet50",
            output_stride=8,
            multi_grid=None,
            head="torchvision",
            auxiliary=True,
        ),
        _row(
            Published("60 996 202", "torchvision"),
            name="deeplab_v3",
            output_stride=8,
            multi_grid=None,
            head="torchvision",
            auxiliary=True,
        ),
        _row(name="deeplab_v3plus"),
        _row(
            Published(
                "41 258 213",
                "the release's weights in Keras",
                beside=(("batch norm's running means and variances", 202_800),),
            ),
            name="deeplab_v3plus",
            backbone="xception65",
        ),
        _row(name="deeplab_v3plus", backbone="mobilenet_v2"),
        _row(name="deeplab_v3plus", image_pooling=False),
        _row(name="deeplab_v3", dims=3, backbone="resnet18", width=16, multi_grid=None),
    ),
    (
        "The papers give no counts; Sandler et al. count v3, at output stride 16 and 8 alike.",
        "Logits are resized to the window's own size, where the papers take the output stride times.",
        "`output_stride` is an argument of one network: train at 16, test at 8, with the same weights.",
        "`image_pooling` looks at the whole window. Without it the footprint is exact; it is the papers' to have it.",
        "v3+ has separable convolutions in ASPP and decoder with every backbone (section 3.1). With MobileNetV2 the "
        "release leaves ASPP's dilated branches and the decoder out (2.11 M in Sandler et al., 4.52 M with a full ASPP "
        "that is not separable): here every backbone has both, so that backbones can be compared.",
        "Xception: ReLU stands before each separable convolution, as in the release; section 3.2 puts it after each "
        "depthwise one.",
    ),
)

RESNET = Family(
    "PSPNet and UPerNet",
    "PSPNet: Zhao et al., CVPR 2017, arXiv:1612.01105, sections 3.2, 3.3 and 4, figures 3 and 4. UPerNet: Xiao et al., "
    "ECCV 2018, arXiv:1807.10221, section 3 and figure 4. ResNet: He et al., CVPR 2016, arXiv:1512.03385, table 1. "
    "Swin: Liu et al., ICCV 2021, arXiv:2103.14030, section 3.",
    (
        _row(name="pspnet"),
        _row(name="pspnet", backbone="resnet50"),
        _row(name="pspnet", auxiliary=True),
        _row(name="upernet"),
        _row(name="upernet", backbone="resnet50"),
        _row(
            Published("60 M", "the authors of Swin", beside=(("an FCN head that is trained beside it", 923_798),)),
            name="upernet",
            backbone="swin_tiny",
            out_channels=150,
        ),
        _row(
            Published("81 M", "the authors of Swin", beside=(("an FCN head that is trained beside it", 923_798),)),
            name="upernet",
            backbone="swin_small",
            out_channels=150,
        ),
        _row(
            Published("121 M", "the authors of Swin", beside=(("an FCN head that is trained beside it", 1_218_710),)),
            name="upernet",
            backbone="swin_base",
            out_channels=150,
        ),
        _row(name="pspnet", dims=3, backbone="resnet18", width=16),
    ),
    (
        "The papers give no counts for these.",
        "A ResNet's stride is in its 3x3 convolution, not in the first 1x1 one, as in all weights that are in use "
        "(torchvision's): the receptive field is smaller than the paper's network's.",
        "The first convolution is 7x7 as in He et al.; both releases have three of 3x3 there.",
        "UPerNet: the paper has a head for each of five tasks; the object head, which fuses all levels, is ours.",
        "Swin is made of MONAI's blocks: its merging orders the neighbours otherwise than the authors' code, so that "
        "their weights would have to be permuted, and no paths are dropped at random.",
        "Bins are parts of the window, so that no output is exact.",
    ),
)

HRNET = Family(
    "HRNetV2 with OCR",
    "HRNetV2: Wang et al., TPAMI 2020, arXiv:1908.07919, section 3, figures 2 to 4, table 1. OCR: Yuan et al., "
    "ECCV 2020, arXiv:1909.11065, section 3.",
    (
        _row(
            Published(
                "65.9 M",
                "Wang et al., without OCR",
                beside=(("OCR's part; HRNetV2's own score is OCR's soft regions", -4_513_299),),
            ),
            name="hrnet_ocr",
            out_channels=19,
        ),
        _row(name="hrnet_ocr", width=18),
        _row(name="hrnet_ocr", dims=3, width=8, stem=16, features=64),
    ),
    (
        "Features are scored at stride 4; the table's output stride is the coarsest branch's.",
        "Regions' weights are a softmax over the window's pixels, as the paper says.",
        "Convolutions start as in He et al. 2015; the release's deviation of 0.001 precedes loaded weights.",
        "Every pixel attends to regions of the whole window: not exact.",
    ),
)

MONAI = Family(
    "From MONAI",
    "`basic_unet`: Falk et al. 2019, doi:10.1038/s41592-018-0261-2. `dynunet`: Isensee et al. 2021, arXiv:1809.10486. "
    "`attention_unet`: Oktay et al. 2018, arXiv:1804.03999, figures 1 and 2. `segresnet`: Myronenko 2018, "
    "arXiv:1810.11654, figure 1. `vnet`: Milletari et al. 2016, arXiv:1606.04797, figure 2. `unetr`: Hatamizadeh et "
    "al. 2022, arXiv:2103.10504, figure 2. `swin_unetr`: Hatamizadeh et al. 2022, arXiv:2201.01266, figure 1.",
    (
        _row(name="basic_unet"),
        _row(name="basic_unet", norm="batch"),
        _row(name="dynunet"),
        _row(name="dynunet", dims=3, norm="batch"),
        _row(name="attention_unet", dims=3, in_channels=1, out_channels=2),
        _row(name="segresnet", dims=3, in_channels=4, out_channels=3),
        _row(name="segresnet", dims=3, in_channels=4, out_channels=3, norm="batch"),
        _row(name="vnet", dims=3, in_channels=1, out_channels=2),
        _row(
            Published(
                "92.58 M",
                "table 5",
                beside=(("the patches' learned places", -165_888), ("layer norms", -38_400)),
            ),
            name="unetr",
            dims=3,
            in_channels=1,
            out_channels=14,
        ),
        _row(
            Published(
                "61.98 M",
                "table 1",
                beside=(("the attention's relative places", -197_730), ("layer norms", -17_280)),
            ),
            name="swin_unetr",
            dims=3,
            in_channels=4,
            out_channels=3,
        ),
    ),
    (
        "These are MONAI's networks and blocks, of the papers' sizes where MONAI's defaults are others; their "
        "footprints are composed here. The other papers give no counts.",
        "`basic_unet`: the last level keeps w channels where the released network has 2w.",
        "`dynunet`: MONAI's recursion over skips, which keeps every weight under two names, is a loop.",
        "`attention_unet`: convolutions stride where the paper pools, and a gate looks at the decoder's map after "
        "up-sampling.",
        "`segresnet`: without the paper's auto-encoder branch, which only its training uses.",
        "`vnet`: batch norm and ELU came with the authors' later code; any number of channels goes in.",
        "`unetr`: takes one window size alone, since each patch's place is learned.",
        "`norm: batch` makes the convolutional ones exact; the published norms look at the whole window.",
    ),
)

FAMILIES = (UNET, FCN, DECONVNET, SEGNET, DEEPLAB, DEEPLAB_V3, RESNET, HRNET, MONAI)
