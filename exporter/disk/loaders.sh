#!/bin/sh
# Collects the boot loaders of disks and CDs from Debian packages in a directory, so
# that the disk writer needs no other tools.
#
# usage: loaders.sh DIRECTORY [ROOT]
# needs: grub-common, grub-pc-bin, systemd-boot-efi; in ROOT, systemd-boot-efi of
# another architecture
set -eu

out=$1 other=${2-}
grub=/usr/lib/grub/i386-pc
mkdir -p "$out"

# The first sector. The two bytes at 0x66 (GRUB_BOOT_MACHINE_DRIVE_CHECK) become
# no-ops, as grub-install does for hard disks, because some BIOSes pass a wrong drive
# number.
cp "$grub/boot.img" "$out/boot.img"
printf '\220\220' | dd of="$out/boot.img" bs=1 seek=102 conv=notrunc status=none

# The rest of GRUB. Its prefix does not name a disk, so GRUB uses the one that it was
# started from. The EFI system partition is the second.
grub-mkimage -O i386-pc -d "$grub" -p '(,gpt2)/grub' -o "$out/core.img" \
	biosdisk part_gpt fat normal linux

# GRUB for CDs, which reads ISO 9660.
grub-mkimage -O i386-pc-eltorito -d "$grub" -p /boot/grub -o "$out/eltorito.img" \
	biosdisk iso9660 normal linux

for root in / $other; do
	cp "$root"/usr/lib/systemd/boot/efi/systemd-boot*.efi "$root"/usr/lib/systemd/boot/efi/linux*.efi.stub "$out"
done
chmod 0644 "$out"/*
